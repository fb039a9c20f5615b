/**
 * What CloudWatch shows on the dashboard, and what a chat is answered. CloudWatch takes HTML without scripts, whose
 * `<cwdb-action>` calls a function when the element before it is pressed:
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard_interactivity.html. Pure.
 */
import { executionLink } from '../telling/links.ts';
import { inHtml, plain, textOf } from '../telling/text.ts';
import { type Fact, factsOf, question, whereItIs } from '../telling/updates.ts';
import { type ButtonInput, type Offer, offersOf } from './buttons.ts';
import type { RolloutStatus } from './operate.ts';

/** What became of what was asked for. */
export interface Said {
  readonly text: string;
  /** It was done. */
  readonly done: boolean;
}

export interface ButtonPage {
  /** Undefined when the records did not answer. */
  readonly status: RolloutStatus | undefined;
  /** Undefined when somebody only looked. */
  readonly said: Said | undefined;
  /** What was typed, so that nobody types it twice. */
  readonly typed: { readonly name: string; readonly reason: string };
  /** ARN of the function that the buttons call. */
  readonly endpoint: string;
}

/** Without colours of its own, but for what CloudWatch's light and dark page both show. */
const style = `
.rollout { font-size: 14px; line-height: 1.45; max-width: 76rem }
.rollout p { margin: 0 0 .6em }
.rollout table { border-collapse: collapse; width: 100%; margin-bottom: .8em }
.rollout th, .rollout td { text-align: left; vertical-align: top; padding: .25em .8em .25em 0; border: 0; overflow-wrap: anywhere }
.rollout th { font-weight: 600; width: 13em }
.rollout .bar { height: .5em; border: 1px solid currentColor; border-radius: .3em; margin-bottom: .8em; max-width: 40em }
.rollout .bar div { height: 100%; background: currentColor; border-radius: .2em }
.rollout .said { border-left: 4px solid #1d8102; padding: .3em .8em; font-weight: 600 }
.rollout .refused { border-color: #d13212 }
.rollout .asked { border-left: 4px solid #ff9900; padding-left: .8em }
.rollout label { display: inline-block; margin: 0 1.2em .8em 0 }
.rollout input { max-width: 100%; box-sizing: border-box }
.rollout .row { margin-bottom: .8em }
.rollout .row .btn { margin: 0 .5em .3em 0 }
@media (max-width: 40em) { .rollout th, .rollout td { display: block; width: auto; border: 0 } .rollout th { padding-bottom: 0 } }`;

/** The page: what became of it, where it is, what can be done, and then the rest, since the window may be small. */
export function buttonPage({ status: records, said, typed, endpoint }: ButtonPage): string {
  const status = textOf(records);
  return [
    `<style>${style}</style>`,
    '<div class="rollout">',
    ...(said === undefined
      ? []
      : [`<p class="said${said.done ? '' : ' refused'}">${inHtml(plain(said.text))}</p>`]),
    ...(status === undefined
      ? [
          '<p>Nothing is known of the rollout. It goes on as it is: its own gates, looks and alarms stop it if they must. To stop it by hand, press Executions above, open the one that is running, and stop it.</p>',
        ]
      : statusHtml(status, typed, endpoint)),
    '</div>',
  ].join('\n');
}

function statusHtml(status: RolloutStatus, typed: ButtonPage['typed'], endpoint: string): string[] {
  const { run, rows, holds } = status;
  if (run === null) return ['<p><b>No rollout has begun yet.</b></p>'];
  const offers = offersOf(status);
  const buttons = (hold?: string) =>
    offers
      .filter((offer) => offer.hold === hold)
      .map((offer) => buttonHtml(offer, endpoint))
      .join('');
  const facts = factsOf(status);
  const questions = facts.filter(([asked]) => asked === question);
  return [
    `<p><b>${inHtml(whereItIs(status).headline)}</b> <a href="${inHtml(executionLink(run.execution))}">Its execution</a></p>`,
    ...(rows === null
      ? []
      : [
          `<div class="bar" role="img" aria-label="${rows.percentage} %"><div style="width: ${rows.percentage}%"></div></div>`,
        ]),
    ...(offers.length === 0 ? [] : [typedHtml(typed)]),
    ...holds.map(
      ({ id }, index) =>
        `<div class="asked"><p><b>${question}:</b> ${inLines(questions[index]?.[1] ?? '')}</p><div class="row">${buttons(id)}</div></div>`,
    ),
    ...(offers.length === 0 ? [] : [`<div class="row">${buttons()}</div>`]),
    ...(run.status === 'STOPPED'
      ? [
          '<p>To go on, repair the cause, then start an execution with the same input: press Executions above, open the latest, New execution.</p>',
        ]
      : []),
    `<table>${facts
      .filter(([asked]) => asked !== question)
      .map(factHtml)
      .join('')}</table>`,
  ];
}

const inLines = (text: string) => inHtml(text).replaceAll('\n', '<br>');

function factHtml([asked, answer]: Fact): string {
  return `<tr><th>${inHtml(asked.replace(/^- /, ''))}</th><td>${inLines(answer)}</td></tr>`;
}

/** What AWS does not tell: who it is. */
function typedHtml({ name, reason }: ButtonPage['typed']): string {
  return `<form>
<label>Your name (recorded) <input name="name" value="${inHtml(name)}" maxlength="100" size="24"></label>
<label>Reason <input name="reason" value="${inHtml(reason)}" maxlength="500" size="48"></label>
</form>`;
}

function buttonHtml({ button, run, attempt, hold, label, confirmation }: Offer, endpoint: string): string {
  // JSON that is the same before and after HTML is read.
  const asked = JSON.stringify({ button, run, attempt, hold }).replace(
    /[<>&]/g,
    (found) => `\\u00${found.charCodeAt(0).toString(16)}`,
  );
  const kind = button === 'go' || button === 'resume' ? 'btn btn-primary' : 'btn';
  return `<a class="${kind}">${inHtml(label)}</a><cwdb-action action="call" display="widget" confirmation="${inHtml(confirmation)}" endpoint="${inHtml(endpoint)}">${asked}</cwdb-action>`;
}

/** The answer in a chat: what was done, or where it is. */
export function chatAnswer({ status: records, said }: Pick<ButtonPage, 'status' | 'said'>): string {
  const status = textOf(records);
  if (said !== undefined) return plain(said.text);
  if (status?.run == null) return 'No rollout has begun yet.';
  return [
    whereItIs(status).headline,
    ...factsOf(status).map(([asked, answer]) => `${asked}: ${answer}`),
  ].join('\n');
}

/** What the console shows who asks for the widget's documentation, in Markdown. */
export const description = `### The rollout, and what it may be asked to do
It shows where the rollout is, what it waits for and what a person is asked, and has a button for everything that works at the moment.
Each asks before it does anything. What is done is recorded under the name that you type.

Parameters: none.
`;

/** Who pressed it, as far as AWS tells: CloudTrail has the identity, under the id of the request. */
export function whoPressed({ widgetContext, chat }: ButtonInput, requestId: string): string {
  const request = `request ${requestId}`;
  return widgetContext === undefined
    ? `a member of the chat ${chat ?? 'that was not named'} (${request})`
    : `${widgetContext.forms.all.name} (typed on the dashboard in account ${widgetContext.accountId}, ${request})`;
}
