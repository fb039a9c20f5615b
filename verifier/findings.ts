/** What is checked, and what was found: counted, and passed on one by one, so that a ruined table fits in memory too. */

/** A statement that must hold; the ones about rows come first. */
export const invariants = {
  presence: 'Ciphertext exactly where there is plaintext',
  iv: 'IV exactly where there is ciphertext',
  ivReuse: 'No IV used twice',
  format: 'Values are of ciphertext format 1',
  keyNumber: 'Values name a registered key',
  opens: 'Values open to their plaintext under key, row and column',
  snapshot: 'Plaintext as in the snapshot',
  names: 'Table and columns as registered',
  coverage: 'Coverage as reported',
  key: 'The key is the registered one',
  trigger: 'Encryption trigger enabled',
  guard: 'Guard trigger enabled',
  boundary: 'Nobody else reaches key, plaintext or records',
  phases: 'Batches add up to their phases',
  work: 'Recorded work covers the encrypted rows',
  completion: 'Completed runs passed every phase and the audit',
} as const;
export type Invariant = keyof typeof invariants;

export interface Violation {
  readonly invariant: string;
  /** Key of the row; or, of an invariant that is not about rows, the record or object. Never content. */
  readonly subject: string;
  /** What was found and what was expected. */
  readonly detail: string;
}

export interface Result {
  readonly invariant: string;
  /** Rows or records looked at; 0 = it does not apply here, or not now. */
  readonly checked: number;
  readonly violations: number;
  readonly first: readonly Violation[];
}

/** Of each invariant, so many violations are kept; all of them go to the listener. */
const kept = 20;

export class Findings {
  readonly #tallies = new Map<Invariant, { checked: number; violations: number; first: Violation[] }>();
  readonly #listener: (violation: Violation) => void;

  constructor(listener: (violation: Violation) => void) {
    this.#listener = listener;
  }

  /** `count` more subjects are looked at. */
  check(invariant: Invariant, count = 1): void {
    this.#tally(invariant).checked += count;
  }

  violated(invariant: Invariant, subject: string, detail: string): void {
    const tally = this.#tally(invariant);
    const violation = { invariant: invariants[invariant], subject, detail };
    tally.violations += 1;
    if (tally.first.length < kept) tally.first.push(violation);
    this.#listener(violation);
  }

  /** Every invariant, in the order of the list above. */
  results(): Result[] {
    return (Object.keys(invariants) as Invariant[]).map((invariant) => ({
      invariant: invariants[invariant],
      ...this.#tally(invariant),
    }));
  }

  #tally(invariant: Invariant) {
    const found = this.#tallies.get(invariant) ?? { checked: 0, violations: 0, first: [] };
    this.#tallies.set(invariant, found);
    return found;
  }
}
