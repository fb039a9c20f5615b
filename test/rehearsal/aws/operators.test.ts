import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { serveOperators } from '../../../rehearsal/aws/operators.ts';
import { type RehearsalAddress, rehearsalFile } from '../../../terminal/rehearsal-address.ts';

const home = process.cwd();
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'operators-'));
  process.chdir(directory);
  mkdirSync(path.dirname(rehearsalFile));
});
afterEach(() => {
  process.chdir(home);
  rmSync(directory, { recursive: true });
});

it('whoever watches sees how it ended, though the end came within a look', async () => {
  const looks: ((status: string) => void)[] = [];
  const end = await serveOperators({
    version: '1.2.3',
    operate: () => new Promise((resolve) => void looks.push(resolve)),
    running: () => [],
    startOf: () => undefined,
    stop: () => undefined,
  });
  const { url, accessKey }: RehearsalAddress = JSON.parse(readFileSync(rehearsalFile, 'utf8'));
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const look = () =>
    new Promise<string>((resolve, reject) => {
      const headers = { authorization: `Credential=${accessKey}/` };
      request(
        `${url}/2015-03-31/functions/Operate/invocations`,
        { method: 'POST', agent, headers },
        (response) => resolve(text(response)),
      )
        .once('error', reject)
        .end('{}');
    });

  const first = look();
  await expect.poll(() => looks.length).toBe(1);
  const ended = end();
  looks[0]?.('ACTIVE');
  expect(await first).toBe('"ACTIVE"');
  expect(existsSync(rehearsalFile)).toBe(true);
  const second = look();
  await expect.poll(() => looks.length).toBe(2);
  looks[1]?.('COMPLETED');
  expect(await second).toBe('"COMPLETED"');
  agent.destroy();
  await ended;
});
