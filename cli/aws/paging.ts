/** Whether a page would reach anybody. */
import { ListSubscriptionsByTopicCommand, SNSClient } from '@aws-sdk/client-sns';
import { tell } from './command.ts';
import type { Deployment } from './deployment.ts';

/**
 * Tells when nobody has confirmed a subscription to the on-call topic, or when that cannot be asked. The functions cannot:
 * from subnets without internet there is no way to SNS.
 */
export async function warnWhenNobodyIsPaged({ outputs }: Pick<Deployment, 'outputs'>): Promise<void> {
  const TopicArn = outputs.OnCallTopicArn;
  try {
    const { Subscriptions = [] } = await new SNSClient().send(
      new ListSubscriptionsByTopicCommand({ TopicArn }),
    );
    // Until an e-mail is confirmed, its subscription has a word in place of an ARN. Functions read for machines.
    const reachable = Subscriptions.some(
      ({ SubscriptionArn, Protocol }) => SubscriptionArn?.startsWith('arn:') && Protocol !== 'lambda',
    );
    if (!reachable)
      tell(
        `Nobody is paged: found no confirmed subscription of ${TopicArn}, expected one at least. Confirm the e-mails that it has sent, or add addresses to the setting onCall and deploy.`,
      );
  } catch (error) {
    tell(
      `Whether anybody is paged is not known: the subscriptions of ${TopicArn} could not be read (${(error as Error).name}).`,
    );
  }
}
