// Prints each message of a daemon as a line of JSON: node subscribe.mjs ENDPOINT [COUNT] [PREFIX...]
// With EARWITNESS_KEY=FILE, a file that `earwitness keys new` made, it has a key (docs/messages.md).
import { readFileSync } from "node:fs"
import { Subscriber } from "zeromq"

const [endpoint = "tcp://127.0.0.1:5557", count = "Infinity", ...prefixes] = process.argv.slice(2)
const socket = new Subscriber()
if (process.env.EARWITNESS_KEY) {
  const text = readFileSync(process.env.EARWITNESS_KEY, "utf8")
  const key = name => text.match(new RegExp(`${name} = "(.+)"`))[1]
  socket.curveServerKey = key("server-key")
  socket.curvePublicKey = key("public-key")
  socket.curveSecretKey = key("secret-key")
}
socket.connect(endpoint)
socket.subscribe(...(prefixes.length ? prefixes : [""]))

let left = Number(count)
for await (const [topic, json] of socket) {
  const message = JSON.parse(json.toString())
  process.stdout.write(JSON.stringify({ topic: topic.toString(), message }) + "\n")
  if (--left <= 0) break
}
socket.close()
