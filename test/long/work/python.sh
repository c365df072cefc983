# Python's own tests: those that need no network and little time.
for t in math float struct long decimal re json threading hashlib int complex cmath set dict \
	list sort zlib bz2 binascii base64 random statistics fractions itertools functools \
	generators exceptions array bytes unicode codecs pickle heapq collections deque memoryview \
	mmap thread context asyncgen coroutines ctypes; do
	tests="$tests test_$t"
done
# One process: translated code is run often then, not made anew for each.
python3 -m test $tests >log 2>&1
status=$?
grep -E '^(All [0-9]|[0-9]+ test|    test_|Tests result)' log
[ $status -eq 0 ] || grep -E '^(FAIL|ERROR|Traceback|[A-Za-z]*Error)' log
