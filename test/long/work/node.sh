# V8: baseline and optimised code, deoptimisation, WebAssembly, workers, collections.
node /work/script.js
node --jitless /work/script.js
node --always-turbofan /work/script.js 2>/dev/null || node --always-opt /work/script.js
node --stress-compaction --max-lazy /work/script.js 2>/dev/null || echo "collector $?"
node /work/workers.js
