// Sends one call of each kind and many tracks with the real Node client, and prints what it was told.
// Arguments: the server's address, the write key, the number of tracks.
import { Analytics } from "@segment/analytics-node";

const [host, writeKey, nTracks] = process.argv.slice(2);
const analytics = new Analytics({ host, writeKey, flushAt: 40, flushInterval: 50, maxRetries: 40 });
const errors = [];
analytics.on("error", (error) => errors.push(String(error.reason ?? error)));

const userId = "u-node";
analytics.identify({ userId, messageId: "identify", traits: { email: "node@example.com", city: "Jyväskylä" } });
analytics.alias({ userId, previousId: "a-node", messageId: "alias" });
analytics.group({ userId, groupId: "g-node", messageId: "group", traits: { plan: "family" } });
analytics.page({ anonymousId: "a-node", name: "Home", messageId: "page" });
analytics.screen({ anonymousId: "a-node", name: "Menu", messageId: "screen" });
for (let n = 0; n < Number(nTracks); n += 1) {
  analytics.track({ userId, event: "Order Completed", messageId: `track-${n}`, properties: { n } });
}
await analytics.closeAndFlush({ timeout: 60_000 });
console.log(JSON.stringify({ errors }));
