# Every CPU method of stress-ng, verified. Only failures are printed: times differ.
for m in $(stress-ng --cpu 1 --cpu-method which 2>&1 | sed -n 's/.*must be one of: //p'); do
	[ "$m" = all ] || stress-ng --cpu 2 --cpu-method "$m" --cpu-ops 4 -t 120 --verify -q \
		--oomable >log 2>&1 || { echo "$m failed"; cat log; }
done
for s in 'vecmath 2 --vecmath-ops 50' 'vecfp 1 --vecfp-ops 2' 'matrix 2 --matrix-ops 20' 'fp 1 --fp-ops 2' \
	'funccall 2 --funccall-ops 2' 'branch 2 --branch-ops 100000' \
	'goto 1 --goto-ops 20' 'longjmp 2 --longjmp-ops 2000' 'qsort 1 --qsort-ops 2' \
	'tsc 2 --tsc-ops 100' 'crypt 1 --crypt-ops 20' 'hash 1 --hash-ops 20' \
	'atomic 4 --atomic-ops 50' 'membarrier 2 --membarrier-ops 20' 'futex 2 --futex-ops 500' \
	'mutex 2 --mutex-ops 500' 'str 1 --str-ops 20' 'wcs 1 --wcs-ops 20' 'bsearch 1 --bsearch-ops 2' \
	'lockbus 2 --lockbus-ops 200' 'nop 2 --nop-ops 100' 'opcode 1 --opcode-ops 20' \
	'icache 1 --icache-ops 20' 'far-branch 1 --far-branch-ops 50' 'sigsegv 2 --sigsegv-ops 500' \
	'sigfpe 2 --sigfpe-ops 500' 'sigtrap 1 --sigtrap-ops 500'; do
	stress-ng --${s%% *} ${s#* } -t 60 --verify -q >log 2>&1 || {
		echo "$s failed $?"
		cat log
	}
done
echo done
