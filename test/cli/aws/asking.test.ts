/** Before a change somebody is asked: at a terminal, or by --yes. What was declined reaches nothing. */
import { afterAll, afterEach, beforeAll, describe, expect, it, test } from 'vitest';
import { Cloud, identity, stack } from '../cloud.ts';
import { status } from '../status.ts';

const id = String(status.run?.id);
const execution = String(status.run?.execution);

/** Every command that changes something, as somebody types it. */
const changing = [
  ['start'],
  ['pause'],
  ['resume'],
  ['tune', '--batch-rows', '100'],
  ['decide', 'hold-7k2m9q', 'go'],
  ['abort'],
  ['rollback', '--option', 'keep'],
  ['rollback', '--option', 'clear'],
  ['rollback', '--option', 'clear', '--confirm', id],
];
const clear = ['rollback', '--option', 'clear'];

const cloud = new Cloud();
beforeAll(() => cloud.start());
afterAll(() => cloud.stop());
afterEach(() => {
  cloud.asked.length = 0;
});

/** What commands find: a run under way, for `start` none. */
function answersFor(command: readonly string[]): void {
  const executions = command[0] === 'start' ? [] : [{ executionArn: execution }];
  cloud.answers = {
    GetCallerIdentity: identity,
    DescribeStacks: stack,
    Invoke: { body: JSON.stringify({ done: 'It is done.', execution, status }) },
    ListExecutions: { body: JSON.stringify({ executions }) },
    DescribeExecution: { body: JSON.stringify({ status: 'SUCCEEDED' }) },
  };
}

/** What AWS was asked to change: neither who, where and how things are, nor how a started execution ends. */
const changes = () =>
  cloud.asked.filter(
    (action) =>
      !/^(GetCallerIdentity|DescribeStacks|Invoke status|ListExecutions|DescribeExecution)$/.test(action),
  );

describe.each(changing.map((command) => [command.join(' '), command] as const))('%s', (_, command) => {
  const typed = command === changing[7];

  it('changes nothing without a terminal and without --yes, and says what it would do', async () => {
    answersFor(command);
    expect(await cloud.rollout(command)).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringMatching(
        /^Found no terminal to ask on, and no --.*stack Rollout \(account 123456789012, eu-west-1\)/,
      ),
    });
    expect(changes()).toEqual([]);
  });

  it.each([
    ['no', 'n\r', 0],
    ['nothing but Enter', '\r', 0],
    ['Ctrl+C', '\u0003', 1],
  ])('changes nothing when the answer is %s', async (_answer, keys, code) => {
    answersFor(command);
    const question = typed ? /Type the id of the run/ : /Go on\?/;
    const said = await cloud.rollout(command, {}, { question, keys });
    expect(said).toMatchObject({
      code: typed ? 1 : code,
      stdout: '',
      stderr: expect.stringContaining('Nothing was changed.'),
    });
    // Who is asked is told about which stack.
    expect(said.stderr).toContain('stack Rollout (account 123456789012, eu-west-1)');
    expect(changes()).toEqual([]);
  });
});

it('goes on when the answer is yes', async () => {
  answersFor(['pause']);
  expect(await cloud.rollout(['pause'], {}, { question: /Go on\?/, keys: 'y\r' })).toMatchObject({
    code: 0,
  });
  expect(changes()).toEqual(['Invoke pause']);
});

describe('clear asks for the id of the run', () => {
  const question = /Type the id of the run/;

  it('and goes on when it is typed', async () => {
    answersFor(clear);
    expect(await cloud.rollout(clear, {}, { question, keys: `${id}\r` })).toMatchObject({ code: 0 });
    expect(changes()).toEqual(['Invoke clear']);
  });

  it('and takes no other one', async () => {
    answersFor(clear);
    const other = id.replace('6', '7');
    expect(await cloud.rollout(clear, {}, { question, keys: `${other}\r` })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`Found "${other}" as the confirmed run, expected ${id}.`),
    });
    expect(changes()).toEqual([]);
  });
});

test('--help of every command on AWS has a description, --json, an example, and --yes if it changes something', async () => {
  const { stdout: all } = await cloud.rollout(['--help']);
  const [, onAws = ''] = /^On AWS.*:\n((?: .*\n)+)/m.exec(all) ?? [];
  const names = [...onAws.matchAll(/^ {2}([a-z-]+)/gm)].map(([, name = '']) => name);
  expect(names.sort()).toEqual(
    [...new Set([...changing.map(([name]) => name), 'status', 'report', 'runbook'])].sort(),
  );
  for (const name of names) {
    const { code, stdout: help } = await cloud.rollout([name, '--help']);
    expect(code).toBe(0);
    expect(help).toMatch(/^Usage: npm run rollout -- .*\n\n\S.{10,}\n(\S.*\n)?\n/);
    expect(help).toMatch(/^ {2}--json /m);
    expect(help).toMatch(new RegExp(`^Examples?:\\n {2}.*rollout -- ${name}\\b`, 'm'));
    expect(/^ {2}--yes /m.test(help), name).toBe(changing.some(([each]) => each === name));
  }
});
