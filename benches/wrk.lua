-- Sends prebuilt requests from a file, in order, over all connections: `-- FILE once` ends the run when they are
-- used up, `-- FILE loop` starts over. A record is the request's length in decimal, a newline, its bytes.
-- Needs `wrk -t1`: one thread reads the file. The last line printed is the outcome as JSON.

local ffi = require("ffi")
ffi.cdef [[ int getpid(void); int kill(int pid, int signal); ]]
local SIGINT = 2

local file, looping
local checked = false
local last = ""

local function next_request()
   local length = file:read("*l")
   return length and file:read(tonumber(length))
end

function setup(thread)
   wrk.thread = thread
end

function init(args)
   file = assert(io.open(args[1], "rb"))
   looping = args[2] == "loop"
end

function request()
   local text = next_request()
   if not checked then
      -- wrk asks once, before it starts, only to look at the answer.
      checked = true
      file:seek("set", 0)
      return text
   end
   if not text and looping then
      file:seek("set", 0)
      text = next_request()
   end
   if text then
      last = text
      return text
   end
   -- Used up. The event loop ends before an answer to this extra request could be counted; the signal ends the
   -- main thread's sleep, so that the reported duration is the real one.
   wrk.thread:stop()
   ffi.C.kill(ffi.C.getpid(), SIGINT)
   return last
end

function done(summary, latency)
   local errors = summary.errors
   print(string.format(
      '{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "refused": %d, "broken": %d}',
      summary.requests, summary.duration / 1e6,
      latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
