'use strict';
const crypto = require('crypto');
const zlib = require('zlib');
let seed = 12345;

function rnd() {
  seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
  return seed;
}

function sha(x) {
  return crypto.createHash('sha256').update(x).digest('hex').slice(0, 24);
}

class Shape { constructor(n) { this.n = n; } area() { return this.n; } }
class Square extends Shape { area() { return this.n * this.n; } }
class Circle extends Shape { area() { return Math.PI * this.n * this.n; } }
class Odd extends Shape { constructor(n) { super(n); this.extra = 'x' + n; } area() { return this.extra.length; } }

function total(shapes) {
  let sum = 0;
  for (const s of shapes) sum += s.area();
  return sum;
}

// Types change after code was optimised: deoptimisation.
const shapes = [];
for (let i = 0; i < 20000; i++) shapes.push(i % 2 ? new Square(i) : new Circle(i));
let sum = 0;
for (let i = 0; i < 20; i++) sum += total(shapes);
shapes.push(new Odd(5));
sum += total(shapes);
console.log('shapes', sum.toFixed(3));

function add(a, b) { return a + b; }
let r = 0;
for (let i = 0; i < 200000; i++) r = add(r, i) | 0;
console.log('add', r, add('a', 1), add(1.5, 2.25), add(2n ** 70n, 1n), add([], {}));

const a = new Int32Array(100000), f = new Float64Array(100000);
for (let i = 0; i < a.length; i++) { a[i] = rnd(); f[i] = Math.sin(i) * Math.sqrt(i) / 3; }
a.sort();
console.log('typed', sha(Buffer.from(a.buffer)), sha(Buffer.from(f.buffer)));

let big = 1n;
for (let i = 1n; i <= 500n; i++) big *= i;
console.log('bigint', sha(big.toString()), (big % 1000000007n).toString());

const text = Array.from({ length: 20000 }, () => rnd().toString(36)).join(' ');
console.log('regexp', (text.match(/\b[a-f]\w*?[0-9](?=\w)/g) || []).length,
  sha(text.replace(/(\w)(\d)/g, '$2$1')));
console.log('json', sha(JSON.stringify(JSON.parse(JSON.stringify(
  Array.from({ length: 3000 }, (_, i) => ({ i, s: rnd().toString(16), d: i / 7 })))))));
console.log('zlib', zlib.inflateSync(zlib.deflateSync(text)).toString() === text);

// Fresh functions all the time.
let acc = 0;
for (let i = 0; i < 300; i++) {
  const g = new Function('x', `let a = x; for (let j = 0; j < 300; j++) a = (a * ${i % 13 + 1} + j) % 65537; return a;`);
  for (let k = 0; k < 5; k++) acc = (acc * 31 + g(k)) % 1000000007;
}
console.log('functions', acc);

// WebAssembly: (func (param i32) (result i32)) adds 1..n in a loop.
const wasm = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 115,
  0, 0, 10, 27, 1, 25, 1, 1, 127, 3, 64, 32, 1, 32, 0, 106, 33, 1, 32, 0, 65, 1, 107, 34, 0, 13, 0, 11, 32, 1, 11]);
if (typeof WebAssembly === 'undefined') {
  console.log('wasm none');
} else if (WebAssembly.validate(wasm)) {
  const m = new WebAssembly.Instance(new WebAssembly.Module(wasm)).exports;
  console.log('wasm', m.s(100000));
} else {
  console.log('wasm invalid');
}

function* gen(n) { for (let i = 0; i < n; i++) yield i * i % 977; }
let gs = 0;
for (const v of gen(50000)) gs = (gs * 3 + v) % 1000003;
console.log('generator', gs);

function deep(n) { return n === 0 ? 0 : 1 + deep(n - 1); }
console.log('deep', deep(5000));
let overflowed = 0;
for (let i = 0; i < 3; i++) {
  try { (function f() { f(); })(); } catch (e) { overflowed += e instanceof RangeError; }
}
console.log('overflow', overflowed);

const m = new Map();
for (let i = 0; i < 100000; i++) { const k = 'k' + rnd() % 5000; m.set(k, (m.get(k) || 0) + 1); }
console.log('map', m.size, [...m.values()].reduce((x, y) => x ^ y * 7, 0));
let garbage = [];
for (let i = 0; i < 100000; i++) { garbage.push({ i, s: 'x' + i }); if (garbage.length > 1000) garbage = []; }
console.log('garbage', garbage.length);

(async () => {
  let s = 0;
  for (let i = 0; i < 5000; i++) s += await Promise.resolve(i);
  console.log('async', s);
})();
