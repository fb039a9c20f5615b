import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Functions } from '../../../rehearsal/machines/functions.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'functions-'));
const log = path.join(directory, 'functions.log');
let functions: Functions;

beforeAll(() => {
  const bundle = path.join(directory, 'index.mjs');
  writeFileSync(
    bundle,
    `
    let calls = 0;
    export async function handler(event, context) {
      calls += 1;
      console.log('said ' + calls);
      switch (event.do) {
        case 'fail': {
          const error = new Error('the connection was lost');
          error.name = 'TransientError';
          throw error;
        }
        case 'hang': return new Promise(() => setInterval(() => {}, 1000));
        case 'exit': process.exit(3);
        case 'crash': setTimeout(() => { throw new Error('out of nowhere'); }); return new Promise(() => {});
        case 'nothing': return undefined;
      }
      return {
        calls,
        own: process.env.OWN,
        only: process.env.ONLY ?? null,
        added: process.env.ADDED,
        inherited: process.env.PATH ?? null,
        left: context.getRemainingTimeInMillis(),
        when: new Date(0),
      };
    }`,
  );
  const definition = { bundle, exported: 'handler', timeoutSeconds: 60 };
  functions = new Functions(
    [
      { ...definition, name: 'First', environment: { OWN: '1', ONLY: 'of First' } },
      { ...definition, name: 'Second', environment: { OWN: '2' } },
      { ...definition, name: 'Brief', environment: {}, timeoutSeconds: 1 },
      { ...definition, name: 'Broken', environment: {}, exported: 'absent' },
    ],
    { ADDED: 'yes' },
    log,
  );
});
afterAll(() => functions.stop());

describe('functions', () => {
  it('run with their own environment variables alone, and stay warm', async () => {
    expect(await functions.invoke('First', {})).toMatchObject({
      calls: 1,
      own: '1',
      added: 'yes',
      inherited: null,
    });
    expect(await functions.invoke('First', {})).toMatchObject({ calls: 2, when: '1970-01-01T00:00:00.000Z' });
    expect(await functions.invoke('Second', {})).toMatchObject({ calls: 3, own: '2', only: null });
    expect(await functions.invoke('First', {})).toMatchObject({ calls: 4, own: '1', only: 'of First' });
    expect(await functions.invoke('First', { do: 'nothing' })).toBe(null);
    const { left } = (await functions.invoke('First', {})) as { left: number };
    expect(left).toBeGreaterThan(10_000);
    expect(left).toBeLessThanOrEqual(60_000);
    // As on AWS, the log follows the answer.
    await expect.poll(() => readFileSync(log, 'utf8')).toContain('said 1');
  });

  it('fail with the name and the cause that Step Functions would see', async () => {
    const error = await functions.invoke('First', { do: 'fail' }).catch((thrown: Error) => thrown);
    expect(error).toBeInstanceOf(Error);
    const { name, message } = error as Error;
    expect(name).toBe('TransientError');
    expect(JSON.parse(message)).toMatchObject({
      errorType: 'TransientError',
      errorMessage: 'the connection was lost',
    });
    await expect(functions.invoke('Broken', {})).rejects.toThrow(/does not export absent/);
    await expect(functions.invoke('Unknown', {})).rejects.toMatchObject({
      name: 'Lambda.ResourceNotFoundException',
    });
  });

  it('are stopped at their time-out, and start cold after it', async () => {
    await expect(functions.invoke('Brief', { do: 'hang' })).rejects.toMatchObject({
      name: 'Sandbox.Timedout',
      message: expect.stringContaining('timed out after 1.00 seconds'),
    });
    expect(await functions.invoke('Second', {})).toMatchObject({ calls: 1 });
  });

  it('asked twice at once are two, which both stay warm, and end', async () => {
    const all = new Functions(
      [
        {
          name: 'Twice',
          bundle: path.join(directory, 'index.mjs'),
          exported: 'handler',
          environment: {},
          timeoutSeconds: 60,
        },
      ],
      {},
      path.join(directory, 'twice.log'),
    );
    const twice = () => Promise.all([all.invoke('Twice', {}), all.invoke('Twice', {})]);
    expect(await twice()).toMatchObject([{ calls: 1 }, { calls: 1 }]);
    expect(await twice()).toMatchObject([{ calls: 2 }, { calls: 2 }]);
    await all.stop();
  });

  it('may end their own process or crash, and nothing else', async () => {
    for (const how of ['exit', 'crash']) {
      await expect(functions.invoke('Second', { do: how })).rejects.toMatchObject({
        name: 'Runtime.ExitError',
      });
      expect(await functions.invoke('Second', {})).toMatchObject({ calls: 1 });
    }
  });
});
