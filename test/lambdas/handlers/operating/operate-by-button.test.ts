import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AwsError } from '../../../../rehearsal/aws/aws-world.ts';
import { buttonsOf, type WidgetButton, widgetCall } from '../../../support/widget.ts';
import { appointments } from '../../tables.ts';
import { begunWorlds, type TestWorld } from '../../world.ts';

const functionArn = 'arn:aws:lambda:us-east-1:123456789012:function:Payments-OperateByButton';
const execution = 'arn:aws:states:us-east-1:123456789012:execution:Payments-EncryptionRollout:one';
const begun = begunWorlds(200);

let world: TestWorld;
let run: { id: string; attempt: number };
beforeEach(async () => {
  [world, run] = await begun();
  // As AWS has it; the running ones are known by it.
  await world.client.query('update encryption_rollout.runs set execution = $1', [execution]);
  world.running.add(execution);
});
afterEach(() => world.stop());

const call = (event: object): Promise<string> =>
  world.invoke('operate-by-button', event, { awsRequestId: 'a1b2', invokedFunctionArn: functionArn });
const look = () => call(widgetCall());
const labels = (page: string) => buttonsOf(page).map(({ label }) => label);
const button = (page: string, label: string) =>
  buttonsOf(page).find((each) => each.label === label) as WidgetButton;
const typed = { name: 'R. Roe', reason: 'checkout is slow' };
const press = async (
  label: string,
  { page = undefined as string | undefined, fields = typed as object } = {},
) => call(widgetCall(fields as Record<string, string>, button(page ?? (await look()), label).asked));
const events = async (event: string) =>
  (
    await world.client.query('select detail from encryption_rollout.events where event = $1 order by id', [
      event,
    ])
  ).rows;
const by = 'R. Roe (typed on the dashboard in account 123456789012, request a1b2)';

/** A question about vitals that cannot be measured. */
async function ask(): Promise<string> {
  world.aws.world.alarms.delete('api-5xx');
  const { gate } = await world.inTurn('check-vitals', {
    run,
    phase: 1,
    target: appointments,
    during: 'batch',
  });
  return (await world.invoke('ask-person', { run, gate, execution: 'hold-1' })).hold;
}

test('shows where the rollout is, and offers what works, each with a question of its own', async () => {
  await world.encrypt(run as never, 1);
  const page = await look();
  expect(page).toContain('Phase 1 Initial Batch');
  expect(page).toMatch(/<th>Where<\/th><td>\d+ of \d+ rows with personal data/);
  expect(page).toContain('https://us-east-1.console.aws.amazon.com/states/home');
  expect(labels(page)).toEqual(['Pause', 'Abort']);
  for (const { confirmation, endpoint, asked } of buttonsOf(page)) {
    expect(confirmation).toMatch(/: .*\.$/);
    expect(endpoint).toBe(functionArn);
    expect(asked).toMatchObject({ run: run.id });
  }
  expect(page).not.toMatch(/<script|<iframe|undefined|null/);
});

test('a question is answered, under the name that was typed and the id by which CloudTrail knows the caller', async () => {
  const hold = await ask();
  const page = await look();
  expect(page).toContain('Customer-facing alarms');
  expect(labels(page)).toEqual(['Go', 'No-go', 'Measure again', 'Pause', 'Abort']);
  expect(button(page, 'Go').confirmation).toContain(hold);
  const after = await press('Go', { page });
  expect(after).toContain(`${hold} is decided: go.`);
  expect(labels(after)).toEqual(['Pause', 'Abort']);
  const { rows } = await world.client.query(
    'select decision, decided_by, comment from encryption_rollout.holds where id = $1',
    [hold],
  );
  expect(rows).toEqual([{ decision: 'go', decided_by: by, comment: 'checkout is slow' }]);
  // The page that was left open answers nothing any more.
  const again = await press('No-go', { page });
  expect(again).toContain('class="said refused"');
  expect(again).toContain(hold);
});

test('an answer that is recorded and did not get through is not said to be none, and gets through when pressed again', async () => {
  const hold = await ask();
  await world.invoke('await-decision', { run, hold, token: 'a-token' });
  const page = await look();
  world.aws.world.disturb = (operation) => {
    if (operation === 'SendTaskSuccess') throw new AwsError('ThrottlingException', 'Rate exceeded');
  };
  const lost = await press('Go', { page });
  world.aws.world.disturb = undefined;
  expect(lost).toContain('class="said refused"');
  expect(lost).not.toContain('Nothing was done');
  expect(lost).toContain('The answer is recorded, but could not be passed on');
  const answers: unknown[] = [];
  world.aws.world.succeedTask = (token, output) => answers.push([token, output]) > 0;
  // Each press is another request.
  const again = await world.invoke('operate-by-button', widgetCall(typed, button(page, 'Go').asked), {
    awsRequestId: 'c3d4',
    invokedFunctionArn: functionArn,
  });
  world.aws.world.succeedTask = undefined;
  expect(again).toContain(`${hold} is decided: go.`);
  expect(answers).toEqual([['a-token', { decision: 'go' }]]);
});

test('an approval is not measured again', async () => {
  await world.client.query(
    `insert into encryption_rollout.holds (id, run_id, attempt, gate, phase, reason, unknown, expires_at, execution)
     values ('hold-apprv2', $1, $2, 'Phase 2 Expanded Batch: Approval', 2, 'Approval', '{}', now() + interval '1 hour', 'x')`,
    [run.id, run.attempt],
  );
  expect(labels(await look())).toEqual(['Go', 'No-go', 'Pause', 'Abort']);
});

test('pauses, and lets it go on', async () => {
  const paused = await press('Pause');
  expect(paused).toContain('Paused. A batch');
  expect(paused).toContain(`Paused by ${by}: checkout is slow`);
  expect(labels(paused)).toEqual(['Resume', 'Abort']);
  const resumed = await press('Resume');
  expect(labels(resumed)).toEqual(['Pause', 'Abort']);
  expect(await events('PAUSED')).toEqual([{ detail: { by, reason: 'checkout is slow' } }]);
  expect(await events('UNPAUSED')).toEqual([{ detail: { by } }]);
});

test('aborts: the execution ends, with who wanted it and why', async () => {
  const page = await press('Abort');
  expect(page).toContain('The execution is stopped.');
  // A rotation leaves the triggers on.
  expect(page).toContain('switches off the triggers that the rollout has switched on');
  expect(world.aws.executions.get(execution)).toEqual({
    status: 'ABORTED',
    cause: `Aborted by ${by}: checkout is slow`,
  });
});

test('nothing is done without a name, and what was typed stays', async () => {
  const page = await press('Abort', { fields: { name: ' ', reason: 'a "sale" <b>' } });
  expect(page).toContain('Nothing was done: found no name');
  expect(page).toContain('value="a &quot;sale&quot; &lt;b&gt;"');
  expect(world.aws.executions.has(execution)).toBe(false);
});

test('a page that was left open does nothing to another run, nor to one that is being stopped', async () => {
  const page = await look();
  await world.client.query("update encryption_rollout.runs set status = 'STOPPING'");
  for (const label of ['Pause', 'Abort'])
    expect(await press(label, { page })).toContain('Nothing was done: This button is out of date.');
  await world.client.query("update encryption_rollout.runs set status = 'ACTIVE'");
  const ofAnother = { ...button(page, 'Abort').asked, run: randomUUID() };
  expect(await call(widgetCall(typed, ofAnother))).toContain('out of date');
  expect(world.aws.executions.has(execution)).toBe(false);
});

test('a button of an attempt that is over does nothing to the one that resumed the run, whatever else it names', async () => {
  const page = await look();
  const { asked } = button(page, 'Abort');
  await world.client.query('update encryption_rollout.runs set attempt = attempt + 1');
  for (const label of ['Pause', 'Abort'])
    expect(await press(label, { page })).toContain('Nothing was done: This button is out of date.');
  for (const button of ['pause', 'abort'])
    expect(await call(widgetCall(typed, { ...asked, button, hold: 'hold-7k2m9q' }))).toContain('out of date');
  expect(await events('PAUSED')).toEqual([]);
  expect(world.aws.executions.has(execution)).toBe(false);
});

test('an execution that is gone cannot be stopped', async () => {
  world.running.delete(execution);
  expect(await press('Abort')).toContain('Nothing was done: Found no execution under way');
});

test('what others have written is text', async () => {
  await world.client.query(
    `update encryption_rollout.runs set paused_at = clock_timestamp(), waiting_since = clock_timestamp(),
       paused_by = '<img src=x onerror=alert(1)>', pause_reason = '"><cwdb-action action="call">{}</cwdb-action> https://evil.example'`,
  );
  const page = await look();
  expect(page).toContain('&lt;img src=x');
  expect(page).not.toContain('<img');
  expect(page).toContain('https[:]//evil.example');
  expect(labels(page)).toEqual(['Resume', 'Abort']);
});

test('before the first rollout there is nothing to press', async () => {
  await world.client.query(
    'delete from encryption_rollout.gates; delete from encryption_rollout.events; delete from encryption_rollout.run_targets; delete from encryption_rollout.runs',
  );
  const page = await look();
  expect(page).toContain('No rollout has begun yet.');
  expect(labels(page)).toEqual([]);
});

test('a database that does not answer is said so, with what can be done all the same', async () => {
  const { port } = world.databaseSecret;
  world.databaseSecret.port = 1;
  const page = await look();
  world.databaseSecret.port = port;
  expect(page).toContain('class="said refused"');
  expect(page).toContain('To stop it by hand');
  expect(labels(page)).toEqual([]);
});

test('the console is told what it is', async () => {
  expect(await call({ describe: true })).toMatch(/^### .*\n[\s\S]*Parameters: none/);
});

test('a chat is answered in text, and its members are known by the request', async () => {
  const hold = await ask();
  const press = (button: string) =>
    call({ pressed: `${button}/C0123ABCD/${run.id}/${run.attempt}/${button === 'pause' ? '' : hold}` });
  expect(await press('status')).toMatch(
    /^Encryption of public.appointments .*\nWhere: [\s\S]*A person is asked: /,
  );
  expect(await press('go')).toContain(`${hold} is decided: go.`);
  expect(await press('pause')).toMatch(/^Paused\./);
  expect(await events('PAUSED')).toEqual([
    { detail: { by: 'a member of the chat C0123ABCD (request a1b2)', reason: '' } },
  ]);
  expect(await press('pause')).toBe(
    'Nothing was done: This button is out of date. What can be done now is below.',
  );
});
