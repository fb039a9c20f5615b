/** A deployment's rollout, watched by somebody who may answer what it asks. */
import type { RolloutStatus } from '../../../lambdas/core/operating/operate.ts';
import { moment } from '../../../lambdas/core/telling/time.ts';
import { UsageError } from '../../../terminal/connection.ts';
import type { Deployment } from '../deployment.ts';
import { FunctionFailed, operate, readStatus } from '../operate.ts';
import { Answering } from './answering.ts';
import { Live, type Output } from './live.ts';

/** Between two looks; a rehearsal takes minutes for what is days. */
export function lookMilliseconds({ isRehearsal }: Pick<Deployment, 'isRehearsal'>): number {
  return isRehearsal ? 500 : 5_000;
}

const [endOfText, quit] = ['\u0003', 'q'];

/** Shows it on `out`; with `input` a terminal as well, keys answer. Until `end`, which lets the process end. */
export class Watch {
  readonly #deployment: Deployment;
  readonly #input: NodeJS.ReadStream | undefined;
  readonly #answering: Answering | undefined;
  readonly #live: Live;
  #status: RolloutStatus | undefined;
  #answeredAt = new Date();
  #turns = Promise.resolve();

  constructor(deployment: Deployment, out: Output, input: NodeJS.ReadStream) {
    this.#deployment = deployment;
    if (out.isTTY && input.isTTY) {
      this.#input = input;
      this.#answering = new Answering(async (hold, decision) => {
        const by = deployment.caller;
        return (await operate(deployment, { command: 'decide', by, hold, decision, comment: '' })).done;
      });
      input.setRawMode(true).setEncoding('utf8').on('data', this.#typed).resume();
    }
    this.#live = new Live(out, deployment, this.#answering);
  }

  /**
   * Asks where the rollout is, and shows it, if there is one. A database that fails over, or a call too many, ends nobody's
   * watching: the last answer stays, and says of itself how old it is.
   * @throws what the first look meets, and what another look cannot mend
   */
  async look(): Promise<RolloutStatus> {
    let silence = '';
    try {
      this.#status = await readStatus(this.#deployment);
      this.#answeredAt = new Date();
    } catch (error) {
      const canEase = error instanceof FunctionFailed || !(error instanceof UsageError);
      if (this.#status === undefined || !canEase) throw error;
      silence = `No answer since ${moment(this.#answeredAt, 'second')}, asked again and again: ${(error as Error).message}`;
    }
    if (this.#status.run !== null) this.#live.show(this.#status, new Date(), silence);
    return this.#status;
  }

  end(): void {
    this.#input?.off('data', this.#typed).setRawMode(false).pause().unref();
  }

  /** Keys may come together, and each has its turn. */
  readonly #typed = (keys: string): void => {
    for (const key of keys) this.#turns = this.#turns.then(() => this.#press(key));
  };

  async #press(key: string): Promise<void> {
    if (key === endOfText || key === quit) {
      this.end();
      // As the terminal itself has it, which has left Ctrl+C to us.
      process.kill(process.pid, 'SIGINT');
      return;
    }
    const status = this.#status;
    if (status === undefined || status.run === null || this.#answering === undefined) return;
    const [hold] = status.holds;
    if (await this.#answering.press(key, hold)) await this.look().catch(() => undefined);
    else this.#live.show(status, new Date());
  }
}
