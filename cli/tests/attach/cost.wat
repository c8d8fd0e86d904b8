;; What `cost.rs` measures on: work under a stack of any depth, and gaps between readings of a clock.
(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  ;; 32 KiB that work goes through, the clock's reading at 0x8000, and from 0x10000 on the gaps, in 8 bytes each.
  (memory (export "memory") 129)
  (global $depth (mut i32) (i32.const 0))
  (func $spin (param $steps i32) (local $address i32)
    (loop $next
      (i64.store (local.get $address) (i64.add (i64.load (local.get $address)) (i64.extend_i32_u (local.get $steps))))
      (local.set $address (i32.and (i32.add (local.get $address) (i32.const 72)) (i32.const 0x7ff8)))
      (br_if $next (local.tee $steps (i32.sub (local.get $steps) (i32.const 1))))))
  (func $work (export "work") (param $depth i32) (param $steps i32)
    (if (local.get $depth)
      (then (call $work (i32.sub (local.get $depth) (i32.const 1)) (local.get $steps)))
      (else (call $spin (local.get $steps))))
    ;; Something to come back for.
    (global.set $depth (local.get $depth)))
  (func $now (result i64)
    (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 0x8000)))
    (i64.load (i32.const 0x8000)))
  ;; Reads the clock until so many nanoseconds are over, and returns where the list of gaps of 2 microseconds or more ends.
  (func $gaps (export "gaps") (param $depth i32) (param $time i64) (result i32)
    (local $end i32) (local $last i64) (local $now i64) (local $until i64)
    (local.set $end (i32.const 0x10000))
    (if (local.get $depth)
      (then (local.set $end (call $gaps (i32.sub (local.get $depth) (i32.const 1)) (local.get $time))))
      (else
        (local.set $last (call $now))
        (local.set $until (i64.add (local.get $last) (local.get $time)))
        (loop $next
          (local.set $now (call $now))
          (if (i64.gt_u (i64.sub (local.get $now) (local.get $last)) (i64.const 2000))
            (then
              (i64.store (local.get $end) (i64.sub (local.get $now) (local.get $last)))
              (local.set $end (i32.add (local.get $end) (i32.const 8)))))
          (local.set $last (local.get $now))
          (br_if $next (i64.lt_u (local.get $now) (local.get $until))))))
    (local.get $end)))
