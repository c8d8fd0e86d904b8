;; Spends its time in the `memory.grow` builtin: grows one page at a time up to the limit of its memory, then keeps
;; asking for a page that it does not get. About a second.
(module $memory_grow
  (memory (export "memory") 1 4096)

  (func $grow (export "grow") (param $times i32)
    (loop $again
      (drop (memory.grow (i32.const 1)))
      (br_if $again (local.tee $times (i32.sub (local.get $times) (i32.const 1))))))

  (func $_start (export "_start")
    (call $grow (i32.const 20_000_000))))
