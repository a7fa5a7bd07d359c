// What OpenAI's package for Node makes of a gateway's answers, told as one JSON document on standard output.
// LIGHTMETER_URL is the gateway's; LIGHTMETER_KEY may generate, LIGHTMETER_POOR_KEY has no quota left,
// and LIGHTMETER_SLOW_KEY may ask once a second.

import OpenAI, { toFile } from "openai";

const { LIGHTMETER_URL, LIGHTMETER_KEY, LIGHTMETER_POOR_KEY, LIGHTMETER_SLOW_KEY } = process.env;
const MODEL = "acme/image-1";

let sent = 0;

function client(apiKey, options = {}) {
  return new OpenAI({
    baseURL: `${LIGHTMETER_URL}/v1`,
    apiKey,
    fetch: (...request) => {
      sent += 1;
      return fetch(...request);
    },
    ...options,
  });
}

async function collected(stream) {
  const found = [];
  for await (const one of stream) found.push(one);
  return found;
}

// The error that `call` is rejected with, and how many requests were sent until then.
async function refused(call) {
  sent = 0;
  try {
    await call();
  } catch (error) {
    const { status, code, type, param, requestID } = error;
    return { kind: error.constructor.name, status, code, type, param, request: requestID, message: error.message, sent };
  }
  return { kind: null, sent };
}

const sdk = client(LIGHTMETER_KEY, { maxRetries: 0 });
const image = { model: MODEL, prompt: "a translucent blue cube" };
const talk = { model: MODEL, messages: [{ role: "user", content: "a cube" }], modalities: ["image", "text"] };
const told = {};

told.url = await sdk.images.generate({ ...image, n: 2, size: "1024x1024" });
told.base64 = await sdk.images.generate({ ...image, response_format: "b64_json", size: "64x64" });

const { data, response, request_id: requestId } = await sdk.images.generate(image).withResponse();
told.withResponse = { images: data.data.length, status: response.status, request: requestId };
const raw = await sdk.images.generate(image).asResponse();
told.asResponse = { type: raw.headers.get("content-type"), body: await raw.json() };

told.atOnce = (await Promise.all(Array.from({ length: 10 }, () => sdk.images.generate(image)))).length;

told.events = await collected(await sdk.images.generate({ ...image, stream: true, n: 2, partial_images: 1 }));
told.streamError = await refused(async () =>
  collected(await sdk.images.generate({ ...image, prompt: "[sample error_after_events=0] x", stream: true })),
);

const png = (name) => toFile(Buffer.from("\x89PNG\r\n\x1a\n made up", "latin1"), name, { type: "image/png" });
const edit = { ...image, image: await png("cat.png") };
told.edit = await sdk.images.edit({ ...edit, n: 2, size: "1024x1024" });
told.editOfMany = await sdk.images.edit({
  ...edit,
  image: [await png("cat.png"), await png("dog.png")],
  mask: await png("mask.png"),
  image_config: { image_size: "4K" },
});
told.editEvents = await collected(await sdk.images.edit({ ...edit, stream: true, partial_images: 1 }));
told.variation = await sdk.images.createVariation({ model: MODEL, image: await png("cat.png"), n: 2 });

told.chat = await sdk.chat.completions.create(talk);
told.chunks = await collected(await sdk.chat.completions.create({ ...talk, stream: true }));

told.models = await collected(await sdk.models.list());
told.model = await sdk.models.retrieve(MODEL);

told.noModel = await refused(() => sdk.models.retrieve("acme/image-2"));
told.noImages = await refused(() => sdk.images.generate({ ...image, n: 0 }));
told.noSuchField = await refused(() => sdk.images.generate({ ...image, seed_phrase: "x" }));
told.noEdits = await refused(() => sdk.images.edit({ ...edit, n: 0 }));
told.noPicture = await refused(() => sdk.images.edit({ ...image, image: [] }));
told.noKey = await refused(() => client("sk-not-one-of-ours").models.list());
told.noQuota = await refused(() => client(LIGHTMETER_POOR_KEY, { maxRetries: 3 }).images.generate(image));

const patient = client(LIGHTMETER_KEY, { maxRetries: 1 });
told.failing = await refused(() => patient.images.generate({ ...image, prompt: "[sample status=500] x" }));

const slow = client(LIGHTMETER_SLOW_KEY, { maxRetries: 2 });
await slow.images.generate(image);
told.paced = await refused(() => slow.images.generate(image));

process.stdout.write(JSON.stringify(told));
