;; A handler of HTTP requests (`wasi:http/incoming-handler`): `/search` computes, three times as long as any other path, and
;; waits for three milliseconds in between; the answer has no body.
(module $http_handler
  (import "wasi:http/types@0.2.0" "[constructor]fields" (func $new_fields (result i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-response" (func $new_response (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-request.path-with-query" (func $path (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[static]response-outparam.set"
    (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[resource-drop]incoming-request" (func $drop_request (param i32)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $timer (param i64) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop_pollable (param i32)))
  (memory (export "memory") 1)
  ;; The one thing that is ever put into memory for the guest is the path.
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func $turn (param $times i32)
    (loop (br_if 0 (local.tee $times (i32.sub (local.get $times) (i32.const 1))))))
  (func $wait (local $timer i32)
    (call $block (local.tee $timer (call $timer (i64.const 3000000))))
    (call $drop_pollable (local.get $timer)))
  (func $search
    (call $turn (i32.const 450000))
    (call $wait)
    (call $turn (i32.const 450000)))
  (func $render
    (call $turn (i32.const 300000)))
  (func $respond (param $out i32)
    (call $set (local.get $out) (i32.const 0) (call $new_response (call $new_fields))
      (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
  (func $handle (export "wasi:http/incoming-handler@0.2.0#handle") (param $request i32) (param $out i32)
    (call $path (local.get $request) (i32.const 16))
    (call $drop_request (local.get $request))
    ;; The character behind the slash.
    (if (i32.eq (i32.load8_u offset=1 (i32.load (i32.const 20))) (i32.const 0x73))
      (then (call $search))
      (else (call $render)))
    (call $respond (local.get $out))))
