local bit = require("bit")
local ffi = require("ffi")
local seed = 42
local function rnd()
	seed = (seed * 1103515245 + 12345) % 2147483648
	return seed
end
local function hash(t)
	local h = 0
	for i = 1, #t do
		h = bit.bxor(bit.rol(h, 5), bit.tobit(t[i]))
	end
	return bit.tohex(h)
end

local t = {}
for i = 1, 100000 do
	t[i] = rnd() % 1000003
end
table.sort(t)
print("sort", hash(t))

local n, sieve = 300000, {}
for i = 2, n do sieve[i] = true end
for i = 2, math.floor(math.sqrt(n)) do
	if sieve[i] then for j = i * i, n, i do sieve[j] = false end end
end
local c = 0
for i = 2, n do if sieve[i] then c = c + 1 end end
print("primes", c)

local function mandel(w)
	local sum = 0
	for y = 0, w - 1 do
		for x = 0, w - 1 do
			local cr, ci, zr, zi, k = 2 * x / w - 1.5, 2 * y / w - 1, 0, 0, 0
			while zr * zr + zi * zi < 4 and k < 50 do
				zr, zi, k = zr * zr - zi * zi + cr, 2 * zr * zi + ci, k + 1
			end
			sum = sum + k
		end
	end
	return sum
end
print("mandel", mandel(150))

ffi.cdef "typedef struct { double x, y; int32_t n; uint8_t b[8]; } point; int abs(int);"
local p = ffi.new("point[1000]")
for i = 0, 999 do
	p[i].x, p[i].y, p[i].n = i * 0.5, i / 3, rnd() % 65536
	for j = 0, 7 do p[i].b[j] = (i * j) % 256 end
end
local s = 0
for k = 1, 50 do
	for i = 0, 999 do
		s = s + p[i].x * p[i].y + ffi.C.abs(-p[i].n) + p[i].b[k % 8]
	end
end
print("ffi", string.format("%.6f", s))

-- New functions all the time: traces come and go.
local acc = 0
for i = 1, 400 do
	local f = loadstring("local a = 0; for j = 1, 200 do a = (a * " .. (i % 17 + 1) ..
	    " + j) % 65537 end return a")
	acc = (acc * 31 + f() + f() + f()) % 1000000007
	if i % 40 == 0 and jit.status() then jit.flush() end
end
print("loaded", acc)

local words = {}
for i = 1, 20000 do
	local w = string.format("%x", rnd())
	words[w:sub(1, 3)] = (words[w:sub(1, 3)] or 0) + 1
end
local keys = {}
for k in pairs(words) do keys[#keys + 1] = k end
table.sort(keys)
local h = 0
for _, k in ipairs(keys) do h = (h * 31 + words[k] + k:byte()) % 1000000007 end
print("strings", #keys, h)

local co = coroutine.wrap(function()
	local a, b = 0, 1
	while true do coroutine.yield(a) a, b = b, (a + b) % 1000000007 end
end)
local last
for i = 1, 50000 do last = co() end
print("coroutine", last)

local x = 0ULL
for i = 1, 200000 do x = x * 6364136223846793005ULL + 1442695040888963407ULL end
print("uint64", tostring(x))
