// Seals with npm `@hpke/core`: HPKE Base mode, DHKEM(P-384, HKDF-SHA384), HKDF-SHA384, AES-256-GCM.
//
// Usage: npm install @hpke/core && node hpke_vectors.mjs > tests/data/hpke/npm-hpke-core.json
//
// Keys are fresh, so every run makes other vectors; the committed ones are frozen.
import { readFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";

// From where the package was installed, not from where this file is.
const require = createRequire(path.join(process.cwd(), "x.js"));
const entry = require.resolve("@hpke/core");
const { Aes256Gcm, CipherSuite, DhkemP384HkdfSha384, HkdfSha384 } = await import(pathToFileURL(entry).href);
const folder = entry.slice(0, entry.indexOf("@hpke/core") + "@hpke/core".length);
const version = JSON.parse(readFileSync(path.join(folder, "package.json"))).version;

// Lengths of plaintext, info and associated data.
const shapes = [[0, 0, 0], [32, 0, 0], [32, 98, 0], [32, 98, 9], [1, 1, 1], [15, 63, 0], [16, 127, 16], [17, 128, 31], [48, 129, 65],
  [257, 255, 0], [1000, 2, 300], [0, 98, 13]];

const hex = (buffer) => Buffer.from(buffer).toString("hex");
const suite = new CipherSuite({ kem: new DhkemP384HkdfSha384(), kdf: new HkdfSha384(), aead: new Aes256Gcm() });
const vectors = [];
for (const shape of shapes) {
  const [plain, info, aad] = shape.map((length) => new Uint8Array(randomBytes(length)));
  const keys = await suite.kem.generateKeyPair();
  const sender = await suite.createSenderContext({ recipientPublicKey: keys.publicKey, info });
  const ct = await sender.seal(plain, aad);
  const recipient = await suite.createRecipientContext({ recipientKey: keys.privateKey, enc: sender.enc, info });
  if (hex(await recipient.open(ct, aad)) !== hex(plain)) throw new Error("does not open");
  vectors.push({
    aad: hex(aad),
    ct: hex(ct),
    enc: hex(sender.enc),
    info: hex(info),
    pkR: hex(await suite.kem.serializePublicKey(keys.publicKey)),
    pt: hex(plain),
    skR: hex(await suite.kem.serializePrivateKey(keys.privateKey)),
  });
}
console.log(JSON.stringify({ aead_id: 2, kdf_id: 2, kem_id: 17, made_by: `npm @hpke/core ${version}`, mode: 0, vectors }, null, 1));
