// Prints each stored event as a line of JSON, in order and once, even if this program, the connection or the daemon
// fails in between. node catch_up.mjs ENDPOINT POSITION_FILE [COUNT]
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { Request, Subscriber } from "zeromq"

const [endpoint = "tcp://127.0.0.1:5557", file = "position.json", count = "Infinity"] = process.argv.slice(2)
let position = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : null // { store, seq }
let left = Number(count)

function deliver(json) {
  const message = JSON.parse(json.toString())
  if (message.type === "status") return
  process.stdout.write(JSON.stringify(message) + "\n")
  left--
}

function save(seq) {
  position.seq = seq
  writeFileSync(`${file}.new`, JSON.stringify(position)) // after the message was processed, and atomically
  renameSync(`${file}.new`, file)
}

async function ask(where) {
  for (;;) {
    const socket = new Request({ receiveTimeout: 3000, sendTimeout: 3000, linger: 0 })
    socket.connect(where)
    try {
      for (;;) {
        const request = { since: position.seq, store: position.store, topics: ["event/", "status/"] }
        await socket.send(JSON.stringify(request))
        const [head, ...messages] = await socket.receive()
        const reply = JSON.parse(head.toString())
        if (reply.error) throw new Error(reply.error)
        position.store = reply.store // a new one is read from its beginning
        for (const one of messages) {
          if (left <= 0) return
          deliver(one)
          save(JSON.parse(one.toString()).stored_seq)
        }
        if (left <= 0) return
        save(reply.through)
        if (!reply.more) return
      }
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 300)) // the daemon may be restarting: try again
    } finally {
      socket.close()
    }
  }
}

const live = new Subscriber()
live.connect(endpoint)
live.subscribe("event/", "status/", "heartbeat/")
let where = ""
for await (const [, json] of live) {
  const message = JSON.parse(json.toString())
  const beat = message.type === "heartbeat"
  if (beat) where = message.catch_up
  if (!message.store || (message.replay && !beat)) continue // replayed messages are in the store
  const newest = beat ? message.stored_through : message.stored_seq
  position ??= { store: message.store, seq: beat ? newest : newest - 1 } // the first time: begin with live messages
  const missed = message.store !== position.store || newest > position.seq + (beat ? 0 : 1)
  if (missed && where) await ask(where)
  else if (!beat && newest === position.seq + 1) {
    deliver(json)
    save(newest)
  }
  if (left <= 0) break
}
live.close()
