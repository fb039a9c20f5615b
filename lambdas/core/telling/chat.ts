/**
 * Messages for Amazon Q Developer in chat applications (formerly AWS Chatbot). It shows CloudWatch's alarms by itself and
 * passes over whatever it does not know, plain text first of all; that goes into its schema of custom notifications:
 * https://docs.aws.amazon.com/chatbot/latest/adminguide/custom-notifs.html
 */

/** Attribute of a page whose text reaches the chat by the other topic as well: the name of that topic. */
export const toldBy = 'ToldBy';

/** Attribute of a message whose buttons the chat may show: an `Offered` as JSON. */
export const offers = 'Offers';

/** What a message has buttons for. */
export interface Offered {
  /** The stack: others may tell the same chat. */
  readonly deployment: string;
  readonly run: string;
  readonly attempt: number;
  readonly hold?: string | undefined;
  readonly buttons: readonly string[];
}

/** Whom the buttons of a chat call, and which chat that is. */
export interface Operated {
  readonly function: string;
  readonly region: string;
  readonly chat: string;
}

/** What somebody presses in a chat, in one word whose parts have no stroke. */
export const pressedParts = ['button', 'chat', 'run', 'attempt', 'hold'] as const;

/**
 * What a button of the chat reads of the message that it stands at: `status` looks, and is offered with any other. All that
 * tells one command from another is here, so that none grows with the names in it: AWS may take no more than a hundred characters.
 */
export function contextOf(
  { deployment, buttons, ...about }: Offered,
  { chat, ...called }: Operated,
): Record<string, string> {
  const pressed = (button: string) => {
    const parts = { hold: '', ...about, button, chat };
    return pressedParts.map((part) => parts[part]).join('/');
  };
  return {
    deployment,
    ...called,
    ...Object.fromEntries(['status', ...buttons].map((button) => [variableOf(button), pressed(button)])),
  };
}

/** A button's name as that of a variable. */
export function variableOf(button: string): string {
  return button.replaceAll('-', '_');
}

/** What the chat shows; more is cut. */
const MAX_CHARACTERS = 6_000;

/**
 * What a chat shows of an SNS message; null = what it shows by itself, an alarm.
 * @param subject null = none
 * @param context what its buttons read, by `contextOf`; undefined = the message has none
 */
export function chatMessage(
  subject: string | null,
  message: string,
  context?: Readonly<Record<string, string>>,
): string | null {
  if (isAlarm(message)) return null;
  const description =
    message.length > MAX_CHARACTERS ? `${message.slice(0, MAX_CHARACTERS)}… (cut; see the e-mail)` : message;
  return JSON.stringify({
    version: '1.0',
    source: 'custom',
    content: {
      textType: 'client-markdown',
      title: unmarked(subject ?? 'Encryption rollout'),
      description: unmarked(description),
    },
    ...(context === undefined ? {} : { metadata: { enableCustomActions: true, additionalContext: context } }),
  });
}

function isAlarm(message: string): boolean {
  try {
    return typeof JSON.parse(message)?.AlarmName === 'string';
  } catch {
    return false;
  }
}

/**
 * Slack's three control characters as themselves, so that `<!channel>` in a name of somebody's calls nobody; and no link whose
 * text is another than its address: whatever we link stands there as it is.
 */
function unmarked(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replace(/\](?=[([])/g, '] ');
}
