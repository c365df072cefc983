# Python's own tests: those that need no network and little time.
for t in math float struct long decimal re json threading hashlib int complex cmath set dict \
	list sort zlib bz2 binascii base64 random statistics fractions itertools functools \
	generators exceptions array bytes unicode codecs pickle heapq collections deque memoryview \
	mmap thread context asyncgen coroutines ctypes; do
	python3 -m test "test_$t" >log 2>&1
	status=$?
	printf 'test_%s %s\n' "$t" "$status"
	[ $status -eq 0 ] || tail -n 30 log >&2
done
