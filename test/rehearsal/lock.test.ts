import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { takeLock } from '../../rehearsal/lock.ts';

const file = () => path.join(mkdtempSync(path.join(tmpdir(), 'lock-')), 'lock');

it('is held by one, until it is given back', async () => {
  const place = file();
  const release = await takeLock(place);
  expect(release).toBeDefined();
  expect(await takeLock(place)).toBeUndefined();
  release?.();
  expect(existsSync(place)).toBe(false);
  const again = await takeLock(place);
  expect(again).toBeDefined();
  again?.();
});

it('goes to one alone of many that ask at once', async () => {
  const place = file();
  const taken = await Promise.all(Array.from({ length: 8 }, () => takeLock(place)));
  expect(taken.filter(Boolean)).toHaveLength(1);
  for (const release of taken) release?.();
});

it('outlives neither a killed holder nor garbage', async () => {
  const place = file();
  const source = `const { takeLock } = await import(${JSON.stringify(path.resolve('rehearsal/lock.ts'))});
    await takeLock(${JSON.stringify(place)}); console.log('taken'); setInterval(() => {}, 1000);`;
  const holder = spawn(process.execPath, ['--input-type=module', '-e', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve) => holder.stdout.once('data', resolve));
  expect(await takeLock(place)).toBeUndefined();
  holder.kill('SIGKILL');
  await new Promise((resolve) => holder.once('exit', resolve));
  const release = await takeLock(place);
  expect(release).toBeDefined();
  release?.();

  writeFileSync(place, 'not a lock');
  const second = await takeLock(place);
  expect(second).toBeDefined();
  second?.();
});

it('is not taken from a holder that is too busy to answer at once', async () => {
  const place = file();
  const busy = createServer((socket) => pause(3_000).then(() => socket.end('the token'))).listen(
    0,
    '127.0.0.1',
  );
  await new Promise((resolve) => busy.once('listening', resolve));
  const { port } = busy.address() as AddressInfo;
  writeFileSync(place, JSON.stringify({ port, token: 'the token' }));
  expect(await takeLock(place)).toBeUndefined();
  busy.close();
});
