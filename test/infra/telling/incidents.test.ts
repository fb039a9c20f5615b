/** How many messages of which kind each kind of incident sends: the runbook's table, counted on the synthesized machines and alarms. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { readConfig } from '../../../infra/config.ts';
import { type MachineName, synthesizeRollout } from '../../../infra/synthesis.ts';
import { anotherRun, failure, type Handlers, rollOut, run } from '../machines.ts';

const kinds = { OnCall: 'pages', Tomorrow: 'tomorrow', Notes: 'notes' } as const;
type Kind = (typeof kinds)[keyof typeof kinds];

const { template } = synthesizeRollout(readConfig('config/example.json'));
// biome-ignore lint/suspicious/noExplicitAny: a template
const of = (id: string): any => template.Resources[id]?.Properties;
const short = (name: string) => name.replace('EncryptionRollout-', '');
const alarms = Object.values(template.Resources)
  .filter(({ Type }) => Type === 'AWS::CloudWatch::Alarm')
  // biome-ignore lint/suspicious/noExplicitAny: a template
  .map(({ Properties }) => Properties as any);

/** Whom the alarm itself tells. */
const toldBy = ({ AlarmActions = [] }: { AlarmActions?: { Ref: string }[] }) =>
  AlarmActions.map(({ Ref }) => short(of(Ref).TopicName));

/** Whom those alarms tell that go off when an execution of this machine fails. */
const failed = (machine: string) =>
  alarms
    .filter(
      ({ MetricName, Dimensions }) =>
        MetricName === 'ExecutionsFailed' && short(of(Dimensions[0].Value.Ref).StateMachineName) === machine,
    )
    .flatMap(toldBy);

const alarmed = (name: string) => toldBy(alarms.find(({ AlarmName }) => short(AlarmName) === name));

/** The execution, those that it starts, and the alarms of those that fail. `metrics`: alarms that go off meanwhile. */
async function happening(
  handlers: Handlers,
  { machine = 'EncryptionRollout' as MachineName, input = {} as unknown, metrics = [] as string[] } = {},
): Promise<string[]> {
  const { ending, topics } = await rollOut(handlers, machine, input);
  const rolledBack = 'error' in ending && ending.error === 'RollbackFailed' ? ['Rollback'] : [];
  const unsuccessful = [...(ending.status === 'FAILED' ? [machine as string] : []), ...rolledBack];
  return [...topics, ...unsuccessful.flatMap(failed), ...metrics.flatMap(alarmed)];
}

const gate = { Gate: () => ({ verdict: 'NO_GO', reason: 'coverage' }) };
const rollback = () => ({ machine: 'Rollback' as const, input: { run, reason: 'an alarm' } });
/** The page of an alarm that stops nothing: StopRollout has it sent. */
const byStopRollout = (name: string) =>
  happening({}, { machine: 'Page', input: { subject: name, message: name }, metrics: [name] });
let asked = 0;

const incidents: Readonly<Record<string, () => Promise<string[]>>> = {
  'a start is refused: wrong input, or a rollout is under way': () =>
    happening({ PrepareDatabase: failure('InvalidInput') }),
  'a start is refused by the checklist': () =>
    happening({ Preflight: () => ({ verdict: 'NO_GO', reason: 'no backup' }) }),
  'a gate, or a look at the vitals, stops the rollout': () => happening(gate),
  'too many rows of a batch fail': () =>
    happening(
      { EncryptBatch: () => ({ outcome: 'BREACH', batch: 1, pauseSeconds: 10, reason: 'errors' }) },
      { metrics: ['BatchErrorRate', 'EncryptionErrors'] },
    ),
  'the key is not the right one while a rollout runs': () =>
    happening({ EncryptBatch: failure('WrongKey') }, { metrics: ['KeyAccessFailures'] }),
  'an alarm of ours stops the rollout': () =>
    happening({}, { ...rollback(), metrics: ['DecryptionFailures'] }),
  'an alarm of your customers stops it, or a person does': () => happening({}, rollback()),
  'a rollback cannot switch a trigger off; again for each of up to two more tries': () =>
    happening({ ...gate, DisableTrigger: failure('DatabaseUnreachable') }),
  'a person is asked': () =>
    happening({
      Gate: ({ phase, stage }) =>
        phase === 1 && stage === 'worked' && asked++ === 0
          ? { verdict: 'INCONCLUSIVE', reason: 'CPU' }
          : { verdict: 'GO', reason: '' },
    }).then((told) => told.filter((topic) => topic !== 'Notes')),
  'the rollout is complete, or ends after the phase that was asked for': () => happening({}),
  'after it: a value does not open, or has no IV, or the trigger fails or is off': () =>
    byStopRollout('TriggerFailures'),
  'after it: less than 99 % is encrypted': async () => alarmed('CoverageBelow99'),
  'after it: a check is not GO': () =>
    happening(
      { PostRolloutCheck: () => ({ verdict: 'NO_GO', subject: 'check', message: 'check' }) },
      { machine: 'PostRolloutChecks', input: { run, check: 'daily' } },
    ),
  'a check cannot be made, or not be started': () =>
    happening(
      { PostRolloutCheck: failure('DatabaseUnreachable') },
      { machine: 'PostRolloutChecks', input: { run, check: 'daily' } },
    ),
  'a status update cannot be sent': () =>
    happening({ WriteUpdate: failure('DatabaseUnreachable') }, { machine: 'StatusUpdates' }),
  'nothing is measured any more': async () => alarmed('MonitorSilent'),
  'an alarm should have stopped the rollout, and could not': async () => alarmed('StopRolloutFailed'),
  'an alarm was to page, and its page could not be sent': async () => alarmed('PageFailed'),
  'somebody is added to the roles of the engine, or taken off': async () => alarmed('MembersChanged'),
  'ciphertext is cleared, as asked': () =>
    happening(
      { ClearCiphertext: () => ({ outcome: 'DONE', batch: 1, pauseSeconds: 1, summary: 'cleared' }) },
      { machine: 'ClearCiphertext', input: { run, confirm: run.id } },
    ),
  'clearing fails': () =>
    happening(
      { ClearCiphertext: failure('DatabaseUnreachable') },
      { machine: 'ClearCiphertext', input: { run, confirm: run.id } },
    ),
};

test('are what the runbook says', async () => {
  const lines: string[] = [];
  for (const [incident, happens] of Object.entries(incidents)) {
    const counts: Record<Kind, number> = { pages: 0, tomorrow: 0, notes: 0 };
    // Names of executions are made of the run's.
    anotherRun();
    for (const topic of await happens()) {
      const kind = kinds[topic as keyof typeof kinds];
      if (kind !== undefined) counts[kind] += 1;
    }
    lines.push(`| ${incident} | ${Object.values(counts).join(' | ')} |`);
  }
  const [, table] = readFileSync('docs/runbook.md', 'utf8').split(/<!-- \/?incidents -->\n/);
  expect(table?.trimEnd().split('\n').slice(2)).toEqual(lines);
}, 60_000);
