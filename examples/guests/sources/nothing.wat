;; A command that is over before any timer can tick.
(module $nothing
  (memory (export "memory") 0)
  (func $_start (export "_start")))
