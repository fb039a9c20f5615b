/**
 * The inside of one warm environment: loads a handler's bundle when it is first called, then answers one invocation at a time.
 * It knows nothing about the handlers; see functions.ts for the outside.
 */
import { randomUUID } from 'node:crypto';
import module from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parentPort } from 'node:worker_threads';
import type { Call } from './functions.ts';

type Handler = (event: unknown, context: unknown) => Promise<unknown>;

const port = parentPort;
if (!port) throw new Error('function-worker.ts runs in a worker thread only');

const bundles = new Map<string, Promise<Record<string, Handler>>>();

async function load(bundle: string): Promise<Record<string, Handler>> {
  // What a function takes to load is mostly V8's to compile. Kept beside the bundles, and so no longer than they are. Node 20 has none.
  module.enableCompileCache?.(path.join(path.dirname(bundle), 'compiled'));
  const loaded = await import(pathToFileURL(bundle).href);
  module.flushCompileCache?.();
  return loaded;
}

async function handlerOf({ bundle, exported }: Call): Promise<Handler> {
  const loading = bundles.get(bundle) ?? load(bundle);
  bundles.set(bundle, loading);
  const handler = (await loading)[exported];
  if (!handler) throw new Error(`${bundle} does not export ${exported}`);
  return handler;
}

port.on('message', async (call: Call) => {
  // As a function finds it when it is loaded, and whenever it is called.
  for (const variable of Object.keys(process.env)) delete process.env[variable];
  Object.assign(process.env, call.environment);
  const context = {
    functionName: call.name,
    functionVersion: '$LATEST',
    invokedFunctionArn: `arn:aws:lambda:us-east-1:123456789012:function:${call.name}`,
    memoryLimitInMB: '512',
    awsRequestId: randomUUID(),
    getRemainingTimeInMillis: () => Math.max(0, call.deadline - Date.now()),
  };
  try {
    const handler = await handlerOf(call);
    // What leaves a Lambda function has been through JSON.
    const result = JSON.stringify((await handler(call.event, context)) ?? null);
    port.postMessage({ result });
  } catch (thrown) {
    const error = thrown instanceof Error ? thrown : new Error(String(thrown));
    port.postMessage({
      error: { errorType: error.name, errorMessage: error.message, trace: (error.stack ?? '').split('\n') },
    });
  }
});
