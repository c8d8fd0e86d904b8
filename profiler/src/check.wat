;; The guest of the start-up check; see check.rs. check.wasm is this file as a binary, which a test checks.
;;
;; The functions call each other in a circle, which is never closed, since no argument is 0. No compiler inlines
;; the members of a circle into each other, so that each of them has a frame of its own in every engine.
(module
  (import "" "host" (func $host (param i64)))
  (func $inner (param i64)
    (if (i64.eqz (local.get 0)) (then (call $outer)))
    (call $host (i64.add (local.get 0) (i64.const 1)))
    (call $host (i64.const 2)))
  (func $middle (param i64 f64)
    (call $inner (local.get 0))
    (call $inner (i64.const 3)))
  (func $outer (export "outer")
    (call $middle (i64.const 4) (f64.const 5)))
  (func (export "context")))
