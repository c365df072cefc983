# The programs of c/, compiled here at several levels: code and results are compared.
export SOURCE_DATE_EPOCH=0
for program in integer floating x87 vectors jumps signals threads selfmod memory; do
	for flags in -O0 -O2 '-O3 -march=x86-64-v3'; do
		# The link's build-id would tell of nothing else than the objects do.
		cp /work/c/$program.c /work/c/sum.h .
		gcc $flags -w -c -o p.o $program.c || exit
		printf '%s %s %s\n' "$program" "$flags" "$(sha256sum <p.o)"
		gcc -o p p.o -pthread -lm || exit
		# Threads count the same; only what they raced for may differ.
		timeout 300 ./p || printf 'status %s\n' "$?"
	done
done
gcc -m32 -O2 -w -nostdlib -static -fno-pic -no-pie -fno-stack-protector -ffreestanding \
	-o compat /work/c/compat.c && ./compat
