// Prints each message of a daemon as a line of JSON: node subscribe.mjs ENDPOINT [COUNT] [PREFIX...]
import { Subscriber } from "zeromq"

const [endpoint = "tcp://127.0.0.1:5557", count = "Infinity", ...prefixes] = process.argv.slice(2)
const socket = new Subscriber()
socket.connect(endpoint)
socket.subscribe(...(prefixes.length ? prefixes : [""]))

let left = Number(count)
for await (const [topic, json] of socket) {
  const message = JSON.parse(json.toString())
  process.stdout.write(JSON.stringify({ topic: topic.toString(), message }) + "\n")
  if (--left <= 0) break
}
socket.close()
