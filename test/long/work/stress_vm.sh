# Every memory method of stress-ng, verified.
for m in $(stress-ng --vm 1 --vm-method which 2>&1 | sed -n 's/.*must be one of: //p'); do
	[ "$m" = all ] || stress-ng --vm 2 --vm-bytes 16m --vm-method "$m" --vm-ops 2000 -t 2 \
		--verify -q >log 2>&1 || { echo "$m failed"; cat log; }
done
for s in 'mmap 2 --mmap-bytes 8m' 'mremap 2 --mremap-bytes 4m' 'fork 2' 'memcpy 2' 'shm 1' 'madvise 1' \
	'mprotect 2' 'stack 1' 'bigheap 1' 'pipe 2' 'switch 2' 'userfaultfd 1' \
	'vm-splice 1' 'remap 1' 'malloc 2 --malloc-bytes 32m'; do
	stress-ng --$s -t 2 --verify -q >log 2>&1 || {
		status=$?
		[ $status -eq 4 ] || { echo "$s failed $status"; cat log; } # 4: not there
	}
done
echo done
