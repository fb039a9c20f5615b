/** Answers to questions by keys, each after one more key that says that it was meant. */

import { answersTo } from '../../../lambdas/core/gates/decisions.ts';
import type { RolloutStatus } from '../../../lambdas/core/operating/operate.ts';
import { pc } from '../../../terminal/colours.ts';

type Hold = RolloutStatus['holds'][number];
type Decision = ReturnType<typeof answersTo>[number];

const keys: Readonly<Record<Decision, { readonly key: string; readonly does: string }>> = {
  go: { key: 'g', does: 'g for go' },
  'no-go': { key: 'n', does: 'n for no-go' },
  retry: { key: 'r', does: 'r to measure once more' },
};

export class Answering {
  readonly #decide: (hold: string, decision: Decision) => Promise<string>;
  #meant: { readonly hold: string; readonly decision: Decision } | undefined;
  #said: { readonly hold: string; readonly text: string } | undefined;

  /** `decide` says what was done. */
  constructor(decide: (hold: string, decision: Decision) => Promise<string>) {
    this.#decide = decide;
  }

  /** What a person reads who is asked this, or nothing. */
  lines(hold: Hold | undefined): string[] {
    if (hold === undefined) return this.#said === undefined ? [] : [this.#said.text];
    if (this.#meant?.hold === hold.id)
      return [
        `  ${pc.bold(`This answers ${hold.id} with ${this.#meant.decision}. Press y to do so, any other key not to.`)}`,
      ];
    const offered = answersTo(hold.gate).map((decision) => keys[decision].does);
    return [
      ...(this.#said?.hold === hold.id ? [this.#said.text] : []),
      `  ${pc.bold(`Press ${offered.join(', ')}.`)}`,
    ];
  }

  /** @returns whether something was decided, or refused */
  async press(key: string, hold: Hold | undefined): Promise<boolean> {
    const meant = this.#meant;
    this.#meant = undefined;
    if (hold === undefined) return false;
    // Asked about another question meanwhile, nobody has confirmed anything.
    if (meant?.hold === hold.id) {
      if (key !== 'y') return false;
      const text = await this.#decide(meant.hold, meant.decision).catch((error: Error) => error.message);
      this.#said = { hold: meant.hold, text };
      return true;
    }
    const decision = answersTo(hold.gate).find((each) => keys[each].key === key);
    if (decision !== undefined) this.#meant = { hold: hold.id, decision };
    return false;
  }
}
