/**
 * Messages for Amazon Q Developer in chat applications (formerly AWS Chatbot). It shows CloudWatch's alarms by itself and
 * passes over whatever it does not know, plain text first of all; that goes into its schema of custom notifications:
 * https://docs.aws.amazon.com/chatbot/latest/adminguide/custom-notifs.html
 */

/** Attribute of a page whose text reaches the chat by the other topic as well: the name of that topic. */
export const toldBy = 'ToldBy';

/** What the chat shows; more is cut. */
const MAX_CHARACTERS = 6_000;

/**
 * What a chat shows of an SNS message; null = what it shows by itself, an alarm.
 * @param subject null = none
 */
export function chatMessage(subject: string | null, message: string): string | null {
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
