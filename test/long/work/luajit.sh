# LuaJIT: traces made, run, thrown away; compared with its own interpreter.
for f in "" -joff; do
	luajit $f /work/script.lua
done
luajit -Ohotloop=2 -Ohotexit=1 /work/script.lua
