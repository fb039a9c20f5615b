import { askPerson, type Hold } from '../../adapters/postgres/gates/holds.ts';
import { readRunTables } from '../../adapters/postgres/runs/run-tables.ts';
import { approvalCriterion } from '../../core/gates/decisions.ts';
import { number, tablesInWords } from '../../core/gates/judgement.ts';
import { AskPersonInput, type AskPersonOutput } from '../../core/payloads.ts';
import { textOf } from '../../core/telling/text.ts';
import { handlerOf, type Step, sessionName } from '../step.ts';

/** Puts an INCONCLUSIVE judgement to a person: writes the page, with an id to answer by. */
export const handler = handlerOf('AskPerson', AskPersonInput, async ({ run, ...question }, step) => {
  return step.database(sessionName(run), async (client): Promise<AskPersonOutput> => {
    const hold = textOf(await askPerson(client, run, question, step.plan.holdMinutes));
    const tables = (await readRunTables(client, run)).map(({ name }) => name);
    return { hold: hold.id, message: page(hold, tablesInWords(tables), step) };
  });
});

/** What the person reads: what was measured, until when, and how to answer. */
function page(
  { id, gate, reason, expiresAt, unknown }: Hold,
  tables: string,
  { commandLine, plan: { goMinutes } }: Step,
): string {
  const answer = (decision: string) => `  ${commandLine(`decide ${id} ${decision}`)}`;
  const approval = unknown.every((label) => label === approvalCriterion.name);
  return [
    ...(approval
      ? [
          `The encryption rollout of ${tables} waits for a person to approve ${gate.replace(/: \w+$/, '')} (${id}).`,
        ]
      : [`The encryption rollout of ${tables} waits for a person to decide ${id}.`, '', reason]),
    '',
    `Answer before ${expiresAt.toISOString()}. No answer by then is no-go, and stops the rollout safely.`,
    `Where it is: ${commandLine('status')}`,
    '',
    approval ? 'Begin it:' : `Go on without knowing, on your word, ${goStands(gate, goMinutes)}:`,
    answer('go'),
    gate === 'Preflight' ? 'Do not begin:' : 'Stop, and roll back:',
    answer('no-go'),
    ...(approval ? [] : ['Measure once more:', answer('retry')]),
    '',
    'No batch runs while the rollout waits. Plaintext is never deleted.',
  ].join('\n');
}

/** Vitals are looked at again and again, anything else once. */
function goStands(gate: string, minutes: number): string {
  if (!gate.endsWith(': CheckVitals')) return 'this once';
  const time = minutes < 120 ? `${minutes} minutes` : `${number.format(minutes / 60)} hours`;
  return `for ${time}, at most until the phase ends; then you are asked anew`;
}
