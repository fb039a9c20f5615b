/**
 * Puts what the machines publish as plain text into the form that the chat shows. It is outside of the VPC and knows
 * neither database nor key; without it the chat sees the alarms alone.
 */
import { Logger } from '@aws-lambda-powertools/logger';
import { PublishCommand, SNSClient } from '@aws-sdk/client-sns';
import * as z from 'zod';
import { required } from '../../adapters/environment.ts';
import { chatMessage, toldBy } from '../../core/telling/chat.ts';

const TellChatInput = z.object({
  Records: z.array(
    z.object({
      Sns: z.object({
        Subject: z.string().nullish(),
        Message: z.string(),
        MessageAttributes: z.record(z.string(), z.unknown()).nullish(),
      }),
    }),
  ),
});

const client = new SNSClient();
const logger = new Logger();

/** SNS tries again when it fails: better told twice than not at all. */
export async function handler(event: unknown): Promise<void> {
  const TopicArn = required('CHAT_TOPIC_ARN');
  for (const { Sns } of TellChatInput.parse(event).Records) {
    const Message =
      toldBy in (Sns.MessageAttributes ?? {}) ? null : chatMessage(Sns.Subject ?? null, Sns.Message);
    if (Message !== null) await client.send(new PublishCommand({ TopicArn, Message }));
    logger.info('done', { state: 'TellChat', outcome: Message === null ? 'TOLD_OTHERWISE' : 'TOLD' });
  }
}
