import { paginateListSubscriptionsByTopic, SNSClient } from '@aws-sdk/client-sns';
import { required } from '../../adapters/environment.ts';
import { CountSubscribersInput, type CountSubscribersOutput } from '../../core/payloads.ts';
import { handlerOf } from '../step.ts';

const client = new SNSClient();

/**
 * Whom a page reaches: the confirmed subscriptions of the on-call topic, without our own TellChat. It runs outside of the
 * VPC, which need not have a way to SNS, and gives a number: subscriptions are people's addresses, which no history may hold.
 */
export const handler = handlerOf(
  'CountSubscribers',
  CountSubscribersInput,
  async (): Promise<CountSubscribersOutput> => {
    const TopicArn = required('ON_CALL_TOPIC_ARN');
    const tellChat = `:function:${required('STACK_NAME')}-TellChat`;
    let subscribers = 0;
    // One that is not confirmed yet, or not any more, has a word in place of an ARN.
    for await (const { Subscriptions = [] } of paginateListSubscriptionsByTopic({ client }, { TopicArn }))
      subscribers += Subscriptions.filter(
        ({ SubscriptionArn, Endpoint }) =>
          SubscriptionArn?.startsWith('arn:') && !Endpoint?.endsWith(tellChat),
      ).length;
    return { subscribers };
  },
);
