/**
 * The inside of one warm Lambda environment: loads a handler's bundle once, then answers one invocation at a time.
 * It knows nothing about the handlers; see functions.ts for the outside.
 */
import { randomUUID } from 'node:crypto';
import module from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parentPort, workerData } from 'node:worker_threads';

type Handler = (event: unknown, context: unknown) => Promise<unknown>;

const { bundle, exported, functionName } = workerData as {
  bundle: string;
  exported: string;
  functionName: string;
};
const port = parentPort;
if (!port) throw new Error('function-worker.ts runs in a worker thread only');

// Of the two hundred milliseconds that a function takes to load, half are V8's to compile what all of them share. Kept beside the
// bundles, and so no longer than they are. Node 20 has none.
module.enableCompileCache?.(path.join(path.dirname(bundle), 'compiled'));
const loading = import(pathToFileURL(bundle).href).then((loaded) => {
  module.flushCompileCache?.();
  const handler: Handler | undefined = loaded[exported] ?? loaded.default?.[exported];
  if (!handler) throw new Error(`${bundle} does not export ${exported}`);
  return handler;
});
// An import that fails is reported by the first invocation, not as an unhandled rejection.
loading.catch(() => undefined);

port.on('message', async ({ event, deadline }: { event: unknown; deadline: number }) => {
  const context = {
    functionName,
    functionVersion: '$LATEST',
    invokedFunctionArn: `arn:aws:lambda:us-east-1:123456789012:function:${functionName}`,
    memoryLimitInMB: '512',
    awsRequestId: randomUUID(),
    getRemainingTimeInMillis: () => Math.max(0, deadline - Date.now()),
  };
  try {
    const handler = await loading;
    // What leaves a Lambda function has been through JSON.
    const result = JSON.stringify((await handler(event, context)) ?? null);
    port.postMessage({ result });
  } catch (thrown) {
    const error = thrown instanceof Error ? thrown : new Error(String(thrown));
    port.postMessage({
      error: { errorType: error.name, errorMessage: error.message, trace: (error.stack ?? '').split('\n') },
    });
  }
});
