/** Who is a member of the engine's roles is listed wherever the boundary is judged, and a change is told. */
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { PrepareDatabaseOutput } from '../../lambdas/core/payloads.ts';
import { begunWorlds, type TestWorld } from '../lambdas/world.ts';

// Roles are the whole server's, and tests beside this one grant them, too: it looks at its own.
const begunWorld = begunWorlds(40);
let world: TestWorld;
let run: PrepareDatabaseOutput;
let group: string;
let login: string;

beforeEach(async () => {
  [world, run] = await begunWorld();
  const id = randomUUID().replaceAll('-', '');
  [group, login] = [`group_${id}`, `login_${id}`];
  await world.client.query(`create role ${group}; create role ${login} login in role ${group}`);
});
afterEach(async () => {
  await world.client.query(`drop role ${group}, ${login}`);
  await world.stop();
});

const grant = () => world.client.query(`grant encryption_rollout_decryptor to ${group}`);

/** Of the decryptors that are told, those of this test. */
const ours = (told: string) =>
  /decryptor: ([^;]*)/
    .exec(told)?.[1]
    ?.split(', ')
    .filter((member) => member.includes(login) || member.includes(group)) ?? [];

const membersOf = ({ criteria }: { criteria: readonly { name: string; measured: string }[] }) =>
  criteria.find(({ name }) => name === "Members of the engine's roles")?.measured ?? '';

/** What Monitor has told of them, in the order of time. */
async function changes() {
  const { rows } = await world.client.query<{ detail: { added: string; removed: string } }>(
    "select detail from encryption_rollout.events where event = 'MEMBERS_CHANGED' order by id",
  );
  return rows
    .map(({ detail }) => ({ added: ours(detail.added), removed: ours(detail.removed) }))
    .filter(({ added, removed }) => added.length + removed.length > 0);
}

async function monitor() {
  world.aws.metrics.length = 0;
  await world.invoke('monitor', {});
  const of = (wanted: string) => world.aws.metrics.findLast(({ name }) => name === wanted)?.value;
  return { changed: of('MembersChanged') ?? 0, breaches: of('Breaches') };
}

test('a gate lists them, those through other roles as well, and passes', async () => {
  const gate = async () => {
    const judgement = await world.inTurn('gate', { run, phase: 1, stage: 'worked' });
    return { found: ours(membersOf(judgement)), passes: judgement.verdict === 'GO' };
  };
  await world.encrypt(run, 1);
  expect(await gate()).toEqual({ found: [], passes: true });
  await grant();
  expect(await gate()).toEqual({ found: [group, `${login} (through ${group})`], passes: true });
});

test('so does preflight', async () => {
  await grant();
  const onCall = { topic: 'arn:aws:sns:us-east-1:123456789012:OnCall', subscribers: 1 };
  const judgement = await world.invoke('preflight', { run, input: {}, onCall });
  expect(ours(membersOf(judgement))).toEqual([group, `${login} (through ${group})`]);
});

test('a boundary that is broken is told with its remedy, and without them', async () => {
  await grant();
  await world.client.query(`grant trigger on public.appointments to public`);
  const judgement = await world.inTurn('gate', { run, phase: 1, stage: 'worked' });
  expect(ours(membersOf(judgement))).toEqual([group, `${login} (through ${group})`]);
  expect(judgement.reason).toMatch(/Boundary around key and plaintext: .*revoke trigger /);
  expect(judgement.reason).not.toContain(login);
});

test('who is added while a run is on is told at the next look, once, and pages nobody', async () => {
  await monitor();
  expect(await changes(), 'who was one before').toEqual([]);
  await grant();
  expect(await monitor()).toMatchObject({ changed: expect.any(Number), breaches: 0 });
  const added = { added: [group, `${login} (through ${group})`], removed: [] };
  expect(await changes()).toEqual([added]);
  await monitor();
  expect(await changes()).toEqual([added]);
  await world.client.query(`revoke ${group} from ${login}`);
  expect((await monitor()).changed).toBeGreaterThan(0);
  expect(await changes()).toEqual([added, { added: [], removed: [`${login} (through ${group})`] }]);
});

test('what could not be told is told at the next look', async () => {
  await monitor();
  await grant();
  const { STACK_NAME } = process.env;
  delete process.env.STACK_NAME;
  await expect(world.invoke('monitor', {})).rejects.toThrow();
  process.env.STACK_NAME = STACK_NAME;
  expect(await changes()).toEqual([]);
  expect((await monitor()).changed).toBeGreaterThan(0);
  expect(await changes()).toHaveLength(1);
});
