/** What a person reads who is asked: about a judgement that could not be made, or whether a phase may begin. Pure. */

import type { RolloutStatus } from '../operating/operate.ts';
import { ASSUMED_MILLISECONDS_PER_ROW } from '../operating/time-left.ts';
import { aimRows } from '../plan/coverage.ts';
import type { PhaseNumber } from '../plan/plan.ts';
import { type Plan, phaseOf } from '../plan/plan.ts';
import type { Origin } from '../stopping/stop-message.ts';
import { runbookAt } from '../telling/hints.ts';
import { deploymentLinks, executionLink } from '../telling/links.ts';
import type { Report } from '../telling/report.ts';
import { subjectOf } from '../telling/subject.ts';
import { textOf } from '../telling/text.ts';
import { duration, moment } from '../telling/time.ts';
import { isApproval } from './decisions.ts';
import { counted, number, tablesInWords } from './judgement.ts';

/** An open question, as it is recorded. */
export interface Question {
  readonly id: string;
  readonly gate: string;
  readonly reason: string;
  readonly expiresAt: Date;
}

/** Subject and text. */
export function questionMessage(
  asked: Question,
  plan: Plan,
  status: RolloutStatus,
  { stack, execution, runbookUrl, commandLine }: Origin,
): { subject: string; message: string } {
  const { id, gate, reason, expiresAt } = textOf(asked);
  const tables = textOf(status.tables.map(({ name }) => name));
  const approval = isApproval(gate);
  const next = phaseOfGate(plan, gate);
  const numbers = status.holds.find((hold) => hold.id === id)?.numbers ?? [];
  const { dashboard, log } = deploymentLinks(execution, stack);
  const answer = (decision: string) => `  ${commandLine(`decide ${id} ${decision}`)}`;
  const lines = [
    approval
      ? `The encryption rollout of ${tablesInWords(tables)} waits for a person to approve ${gate.replace(/: \w+$/, '')} (${id}).`
      : `The encryption rollout of ${tablesInWords(tables)} waits for a person to decide ${id}. ${reason}`,
    'Customers: not affected. No batch runs while the rollout waits, and plaintext is never deleted.',
    `Until morning: it can wait until ${moment(expiresAt)}. No answer by then is no-go, and stops the rollout safely.`,
    '',
    ...(numbers.length === 0 ? [] : [...textOf(numbers), '']),
    approval ? 'Begin it:' : `Go on without knowing, on your word, ${goStands(gate, plan.goMinutes)}:`,
    answer('go'),
    gate === 'Preflight' ? 'Do not begin:' : 'Stop, and roll back:',
    answer('no-go'),
    ...(approval ? [] : ['Measure once more:', answer('retry')]),
    'No checkout at hand? The dashboard has buttons for this, in its first row.',
    '',
    `Where it is: ${commandLine('status')}`,
    `Execution: ${executionLink(execution)}`,
    `Dashboard: ${dashboard}`,
    `Log: ${log}`,
    ...(runbookUrl === null ? [] : [`Runbook: ${runbookAt(runbookUrl, 'decisions')}`]),
  ];
  return {
    subject: subjectOf({
      stack,
      what: approval ? 'approve' : 'decide',
      tables,
      phase: next,
      about: approval ? '' : (gate.split(': ').at(-1) ?? ''),
    }),
    message: lines.join('\n'),
  };
}

type Numbers = Pick<RolloutStatus, 'rows' | 'tables' | 'millisecondsPerRow' | 'tuned'>;

/** What an approval is decided by: what the phases before have done, and what the one that is asked about will. */
export function approvalNumbers(gate: string, plan: Plan, status: Numbers, report: Report): string[] {
  const next = phaseOfGate(plan, gate);
  return isApproval(gate) && next !== undefined
    ? [...soFar(status, report), ...forecast(plan, status, next)]
    : [];
}

function phaseOfGate(plan: Plan, gate: string): PhaseNumber | undefined {
  const [, phase] = /^Phase (\d)/.exec(gate) ?? [];
  return plan.phases.find(({ number }) => String(number) === phase)?.number;
}

/** What the phases before have done, all tables of each together. */
function soFar({ rows }: Numbers, { phases, gates }: Report): string[] {
  const lines = [...new Set(phases.map(({ title }) => title))].map((title) => {
    const ofTables = phases.filter((each) => each.title === title);
    const sum = (column: 'rowsEncrypted' | 'rowsFailed' | 'batches' | 'batchMilliseconds') =>
      ofTables.reduce((total, each) => total + Number(each[column]), 0);
    const encrypted = sum('rowsEncrypted');
    const each = encrypted === 0 ? '' : `, ${duration(sum('batchMilliseconds') / encrypted, 'ms')} a row`;
    const judged = gates.filter(({ gate }) => gate.startsWith(`${title}: `) && !isApproval(gate));
    const verdicts = [...new Set(judged.map(({ verdict }) => verdict))].join(', ');
    return `- ${title}: ${counted(encrypted, 'row')} in ${counted(sum('batches'), 'batch', 'batches')}, ${number.format(sum('rowsFailed'))} failed${each}${verdicts === '' ? '' : `; judged ${verdicts}`}`;
  });
  const now =
    rows === null
      ? 'nothing is encrypted yet'
      : `${number.format(rows.encrypted)} of ${counted(rows.withPersonalData, 'row')} encrypted (${rows.percentage} %)`;
  return [`So far: ${now}${lines.length === 0 ? '.' : ':'}`, ...lines];
}

/** What the phase will do, as fast as it went so far. */
function forecast(plan: Plan, { tables, millisecondsPerRow, tuned }: Numbers, next: PhaseNumber): string[] {
  const phase = phaseOf(plan, next);
  const soak = phase.soakMinutes === 0 ? '' : `, then ${duration(phase.soakMinutes, 'min')} of watching`;
  if (next === 4) return [`Next: triggers are switched on in ${counted(tables.length, 'table')}${soak}.`];
  const batchRows = tuned.batchRows ?? phase.batchRows;
  let [rows, batches] = [0, 0];
  for (const { rows: of } of tables) {
    if (of === null) continue;
    const left = Math.max(0, aimRows(phase, of.withPersonalData) - of.encrypted);
    rows += left;
    batches += Math.ceil(left / batchRows);
  }
  const each = millisecondsPerRow ?? ASSUMED_MILLISECONDS_PER_ROW;
  const hours = (rows * each) / 3_600_000 + (batches * (tuned.pauseSeconds ?? phase.pauseSeconds)) / 3_600;
  return [
    `Next: about ${counted(rows, 'row')} in ${counted(batches, 'batch', 'batches')}, ${duration(hours, 'h')} if nothing is waited for${soak}.`,
  ];
}

/** Vitals are looked at again and again, anything else once. */
function goStands(gate: string, minutes: number): string {
  if (!gate.endsWith(': CheckVitals')) return 'this once';
  return `for ${duration(minutes, 'min')}, at most until the phase ends; then you are asked anew`;
}
