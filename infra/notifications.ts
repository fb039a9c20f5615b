import { RemovalPolicy, Stack } from 'aws-cdk-lib';
import { type IGrantable, PolicyStatement, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Key } from 'aws-cdk-lib/aws-kms';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { EmailSubscription } from 'aws-cdk-lib/aws-sns-subscriptions';
import { Construct } from 'constructs';

interface NotificationsProps {
  readonly topicName: string;
  /** E-mail addresses; each must confirm its subscription. */
  readonly onCall: readonly string[];
}

/** The topic that pages the person on call: encrypted, and deaf to anything but TLS. */
export class Notifications extends Construct {
  readonly topic: Topic;
  private readonly key: Key;

  constructor(scope: Construct, id: string, props: NotificationsProps) {
    super(scope, id);
    // Alarms cannot publish to a topic under the AWS managed key, whose policy nobody can extend.
    this.key = new Key(this, 'Key', {
      description: `Notifications on ${props.topicName}`,
      enableKeyRotation: true,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    this.topic = new Topic(this, 'OnCall', {
      topicName: props.topicName,
      displayName: 'Encryption rollout',
      masterKey: this.key,
      enforceSSL: true,
    });
    const alarms = {
      principals: [new ServicePrincipal('cloudwatch.amazonaws.com')],
      conditions: { StringEquals: { 'aws:SourceAccount': Stack.of(this).account } },
    };
    this.key.addToResourcePolicy(
      new PolicyStatement({ ...alarms, actions: ['kms:Decrypt', 'kms:GenerateDataKey*'], resources: ['*'] }),
    );
    // A topic with a policy of its own, which demanding TLS gives it, loses the one that lets alarms in.
    this.topic.addToResourcePolicy(
      new PolicyStatement({ ...alarms, actions: ['sns:Publish'], resources: [this.topic.topicArn] }),
    );
    for (const address of props.onCall) this.topic.addSubscription(new EmailSubscription(address));
  }

  /** Lets a publisher use the topic's key; leave to publish alone is not enough. */
  grantEncryption(publisher: IGrantable): void {
    this.key.grant(publisher, 'kms:Decrypt', 'kms:GenerateDataKey*');
  }
}
