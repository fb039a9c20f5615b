/**
 * Puts what the machines publish as plain text into the form that the chat shows. It is outside of the VPC and knows
 * neither database nor key; without it the chat sees the alarms alone.
 */
import { Logger } from '@aws-lambda-powertools/logger';
import { PublishCommand, SNSClient } from '@aws-sdk/client-sns';
import * as z from 'zod';
import { required } from '../../adapters/environment.ts';
import { chatMessage, contextOf, type Operated, offers, toldBy } from '../../core/telling/chat.ts';

const TellChatInput = z.object({
  Records: z.array(
    z.object({
      Sns: z.object({
        Subject: z.string().nullish(),
        Message: z.string(),
        MessageAttributes: z.record(z.string(), z.object({ Value: z.string() })).nullish(),
      }),
    }),
  ),
});

const Offered = z.object({
  deployment: z.string(),
  run: z.string(),
  attempt: z.int(),
  hold: z.string().optional(),
  buttons: z.array(z.string()).min(1),
});

/** Undefined where the channel may not operate. */
function operatedBy(name: string | undefined): Operated | undefined {
  return name === undefined
    ? undefined
    : { function: name, region: required('AWS_REGION'), chat: required('CHAT_CHANNEL') };
}

const client = new SNSClient();
const logger = new Logger();

/** SNS tries again when it fails: better told twice than not at all. */
export async function handler(event: unknown): Promise<void> {
  const TopicArn = required('CHAT_TOPIC_ARN');
  const operated = operatedBy(process.env.OPERATE_BY_BUTTON);
  for (const { Sns } of TellChatInput.parse(event).Records) {
    const attributes = Sns.MessageAttributes ?? {};
    // Where there is nothing to press, the message is all.
    const offered = Offered.safeParse(JSON.parse(attributes[offers]?.Value ?? '{}')).data;
    const context = offered && operated && contextOf(offered, operated);
    const Message = toldBy in attributes ? null : chatMessage(Sns.Subject ?? null, Sns.Message, context);
    if (Message !== null) await client.send(new PublishCommand({ TopicArn, Message }));
    logger.info('done', { state: 'TellChat', outcome: Message === null ? 'TOLD_OTHERWISE' : 'TOLD' });
  }
}
