/** What people decided about a judgement that was INCONCLUSIVE, folded into its criteria. Pure. */
import { type Criterion, labelOf } from './judgement.ts';

export type Decision = 'go' | 'no-go' | 'retry' | 'expired';

/** A hold that is decided. */
export interface DecidedHold {
  readonly id: string;
  /** Labels of the criteria that nothing was known about when the person was asked. */
  readonly unknown: readonly string[];
  readonly decision: Decision;
  /** Who decided; null when nobody did in time. */
  readonly by: string | null;
}

/** Whether the answer, or that there was none in time, stops the rollout. */
export function refuses({ decision }: DecidedHold): boolean {
  return decision === 'no-go' || decision === 'expired';
}

/**
 * The criteria as they stand after the decisions of this run, attempt and gate. `go` accepts what was unknown when the
 * person was asked, whenever it is unknown; what has failed since fails. `no-go` and `expired` add a failed criterion.
 * `retry` changes nothing: it is judged afresh.
 */
export function withDecisions(
  criteria: readonly Criterion[],
  decided: readonly DecidedHold[],
): readonly Criterion[] {
  const acceptedBy = new Map<string, string>();
  const refused: Criterion[] = [];
  for (const hold of decided) {
    const { id, unknown, decision, by } = hold;
    if (decision === 'go') for (const label of unknown) acceptedBy.set(label, by ?? 'a person');
    if (refuses(hold))
      refused.push({
        name: 'Decision of a person',
        expected: 'go',
        measured: decision === 'expired' ? `no answer in time (${id})` : `no-go by ${by} (${id})`,
        passed: false,
      });
  }
  return [
    ...criteria.map((criterion) => {
      const by = acceptedBy.get(labelOf(criterion));
      return criterion.passed !== null || by === undefined
        ? criterion
        : { ...criterion, measured: `${criterion.measured}; accepted by ${by}`, passed: true };
    }),
    ...refused,
  ];
}

/** What is asked before a phase that begins only when a person has said so. */
export const approvalCriterion: Criterion = {
  name: 'Approval',
  expected: 'go by a person',
  measured: 'not given yet',
  passed: null,
};

/** Whether a question of this judgement asks for an approval, of which nothing can be measured. */
export function isApproval(gate: string): boolean {
  return gate.endsWith(`: ${approvalCriterion.name}`);
}

/** What a question of this judgement may be answered with. Where nothing was measured, nothing is measured once more. */
export function answersTo(gate: string): readonly Exclude<Decision, 'expired'>[] {
  return isApproval(gate) ? ['go', 'no-go'] : ['go', 'no-go', 'retry'];
}
