;; Waits and notifications on shared memory.
(module
  (memory $shared 1 8 shared)
  (func $notify (result i32) (memory.atomic.notify (i32.const 0) (i32.const 1)))
  (func (export "run") (param $n i32) (result i32)
    (local $sum i32)
    (loop $again
      (local.set $sum (i32.add (local.get $sum) (call $notify)))
      ;; Another value than expected; the time is up.
      (local.set $sum (i32.add (local.get $sum)
        (memory.atomic.wait32 (i32.const 0) (i32.const 1) (i64.const 10))))
      (local.set $sum (i32.add (local.get $sum)
        (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const 10))))
      (local.set $sum (i32.add (local.get $sum)
        (memory.atomic.wait64 (i32.const 8) (i64.const 0) (i64.const 10))))
      (drop (i32.atomic.rmw.add (i32.const 16) (i32.const 1)))
      (drop (memory.grow (i32.const 1)))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $sum)))
