;; A command that no host has what it takes to run.
(module $missing_import
  (import "env" "not_there" (func $not_there (param i32)))
  (memory (export "memory") 0)
  (func $_start (export "_start")
    (call $not_there (i32.const 1))))
