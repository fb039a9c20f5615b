/** What a person does to a rollout without a checkout: buttons on the dashboard and in a chat. Pure. */
import * as z from 'zod';
import { answersTo, type Decision } from '../gates/decisions.ts';
import { waitOf } from '../pressure/throttle.ts';
import { type Offered, pressedParts } from '../telling/chat.ts';
import type { RolloutStatus } from './operate.ts';

const fields = z.looseObject({
  name: z.string().trim().max(100).default(''),
  reason: z.string().trim().max(500).default(''),
});

/**
 * A pressed button, or what only looks: then `button` is missing.
 * - of the dashboard: `widgetContext`, as CloudWatch adds it to every call, with what was typed into the page's fields.
 *   https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard_about.html
 * - of a chat: `{"pressed": …}`, a word of the message's, whose parts `asked` has
 */
export const ButtonInput = z.preprocess(
  (given) => asked(given) ?? given,
  z.object({
    /** The console asks for the widget's documentation. */
    describe: z.boolean().default(false),
    button: z.enum(['go', 'no-go', 'retry', 'pause', 'resume', 'abort']).optional(),
    /** What the button was shown for: a page that was left open is about another one. */
    run: z.string().optional(),
    attempt: z.int().optional(),
    hold: z.string().optional(),
    widgetContext: z
      .object({
        accountId: z.string().default(''),
        forms: z.object({ all: fields.prefault({}) }).prefault({}),
      })
      .optional(),
    /** The channel. */
    chat: z.string().optional(),
  }),
);
export type ButtonInput = z.output<typeof ButtonInput>;
export type Button = NonNullable<ButtonInput['button']>;

/** What a chat's word says. */
function asked(given: unknown): object | undefined {
  const { pressed } = Object(given) as Record<string, unknown>;
  if (typeof pressed !== 'string') return undefined;
  const parts = pressed.split('/').map((text, index) => [pressedParts[index], text]);
  const { button, attempt, ...others } = Object.fromEntries(parts.filter(([, text]) => text !== ''));
  return {
    ...others,
    ...(button === 'status' ? {} : { button }),
    ...(attempt === undefined ? {} : { attempt: Number(attempt) }),
  };
}

/** A button that works now. */
export interface Offer {
  readonly button: Button;
  /** What the rollout is asked to do with it, or which question it answers. */
  readonly run: string;
  readonly attempt: number;
  readonly hold?: string;
  readonly label: string;
  /** What is asked before it is done. */
  readonly confirmation: string;
}

const answers: Readonly<Record<Exclude<Decision, 'expired'>, { label: string; does: string }>> = {
  go: { label: 'Go', does: 'lets the rollout go on, on your word' },
  'no-go': { label: 'No-go', does: 'stops the rollout safely; in preflight nothing has begun' },
  retry: { label: 'Measure again', does: 'has everything measured once more' },
};

/** Everything that would be done if it were asked for now, and nothing else. */
export function offersOf({ run, holds, waiting }: RolloutStatus): Offer[] {
  if (run?.status !== 'ACTIVE') return [];
  const ofAttempt = { run: run.id, attempt: run.attempt };
  const isPaused = waiting !== null && waitOf(waiting.for) === 'person';
  const offers: Offer[] = holds.flatMap(({ id, gate }) =>
    answersTo(gate).map((button) => {
      const { label, does } = answers[button];
      return {
        button,
        ...ofAttempt,
        hold: id,
        label,
        confirmation: `${label}, to ${gate} (${id}): this ${does}.`,
      };
    }),
  );
  offers.push(
    isPaused
      ? { button: 'resume', ...ofAttempt, label: 'Resume', confirmation: 'Resume: the batches go on.' }
      : {
          button: 'pause',
          ...ofAttempt,
          label: 'Pause',
          confirmation:
            'Pause: a batch that is under way ends, and no further one begins until somebody resumes.',
        },
    {
      button: 'abort',
      ...ofAttempt,
      label: 'Abort',
      confirmation:
        'Abort: this stops the execution, and its rollback cancels the batches and switches off the triggers that the rollout has switched on. Encrypted rows stay encrypted, plaintext is everywhere; the next start goes on from there.',
    },
  );
  return offers;
}

/** What a message may have buttons for, as a chat is told of it. `hold`: the question that it is about. */
export function offeredWith(deployment: string, status: RolloutStatus, hold?: string): string {
  const buttons = offersOf(status)
    .filter((offer) => offer.hold === undefined || offer.hold === hold)
    .map(({ button }) => button);
  const { id: run = '', attempt = 0 } = status.run ?? {};
  return JSON.stringify({ deployment, run, attempt, hold, buttons } satisfies Offered);
}

/**
 * Whether it still does what it did when it was shown: a run that is resumed keeps its id. What answers a question is judged
 * by the question.
 */
export function isOffered({ button, run, attempt, hold }: ButtonInput, status: RolloutStatus): boolean {
  if (button !== undefined && button in answers && hold !== undefined) return true;
  return offersOf(status).some(
    (offer) => offer.button === button && offer.run === run && offer.attempt === attempt,
  );
}
