// What other packages for Node make of a gateway's answers, told as one JSON document on standard output.
// LIGHTMETER_URL is the gateway's, LIGHTMETER_KEY may generate.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { generateImage, generateText, streamText } from "ai";

const { LIGHTMETER_URL, LIGHTMETER_KEY } = process.env;
const settings = { baseURL: `${LIGHTMETER_URL}/v1`, apiKey: LIGHTMETER_KEY };
const MODEL = "gpt-image-2.6-flare";
const DRAWING_CHAT = "acme/image-1";

const openai = createOpenAI(settings);
const openrouter = createOpenRouter({ ...settings, compatibility: "strict" });
const told = {};

// What a file is, and the bytes that it begins with.
const seen = (files) => files.map((file) => [file.mediaType, Buffer.from(file.uint8Array.slice(0, 4)).toString("latin1")]);

const images = await generateImage({
  model: openai.image(MODEL),
  prompt: "a translucent blue cube",
  n: 2,
  size: "1024x1024",
  providerOptions: { openai: { quality: "low", background: "opaque" } },
});
told.images = { files: seen(images.images), warnings: images.warnings };

const edited = await generateImage({
  model: openai.image(MODEL),
  prompt: { text: "make it red", images: [images.image.uint8Array] },
});
told.edited = { files: seen(edited.images), warnings: edited.warnings };

const drawing = openrouter(DRAWING_CHAT, { extraBody: { modalities: ["image", "text"] } });
const said = await generateText({ model: drawing, prompt: "a translucent blue cube" });
told.said = { files: seen(said.files), text: said.text };

const stream = streamText({ model: drawing, prompt: "a translucent blue cube" });
told.streamed = { text: await stream.text, files: seen(await stream.files), reason: await stream.finishReason };

try {
  await generateImage({ model: openai.image("gpt-image-unknown"), prompt: "a cube", maxRetries: 0 });
} catch (error) {
  told.unknown = { status: error.statusCode, message: error.message, retryable: error.isRetryable };
}

process.stdout.write(JSON.stringify(told));
