'use strict';
const { Worker, isMainThread, workerData, parentPort } = require('worker_threads');

if (isMainThread) {
  const shared = new SharedArrayBuffer(16);
  const v = new Int32Array(shared);
  let left = 4, sum = 0;

  for (let i = 0; i < 4; i++) {
    const w = new Worker(__filename, { workerData: { shared, i } });
    w.on('message', (m) => { sum += m; });
    w.on('exit', () => { if (--left === 0) console.log('workers', v[0], v[1], sum); });
  }
} else {
  const v = new Int32Array(workerData.shared);
  let h = workerData.i;

  for (let k = 0; k < 50000; k++) {
    Atomics.add(v, 0, 1);
    Atomics.xor(v, 1, k * (workerData.i + 1));
    h = (Math.imul(h, 31) + k) | 0;
  }
  parentPort.postMessage(h);
}
