import { RemovalPolicy, Stack } from 'aws-cdk-lib';
import { EventField, Match, Rule, RuleTargetInput } from 'aws-cdk-lib/aws-events';
import { SnsTopic } from 'aws-cdk-lib/aws-events-targets';
import { type IGrantable, PolicyStatement, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Key } from 'aws-cdk-lib/aws-kms';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { EmailSubscription } from 'aws-cdk-lib/aws-sns-subscriptions';
import type { IStateMachine } from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { tablesInWords } from '../../lambdas/core/gates/judgement.ts';
import type { RolloutConfig } from '../config.ts';
import type { Names } from '../names.ts';

type Stakeholder = keyof RolloutConfig['stakeholders'];

/**
 * What each hears of, by the plan's communication plan. An end before its time may be that of a rollout that was refused
 * and changed no row, which is nothing to tell customers: their incidents are rollbacks.
 */
export const heard = {
  executives: 'beginnings and ends',
  security: 'beginnings and ends',
  support: 'beginnings and ends',
  incidents: 'rollbacks',
} as const satisfies Record<Stakeholder, string>;

interface NotificationsProps {
  readonly names: Names;
  /** E-mail addresses; each must confirm its subscription. */
  readonly onCall: readonly string[];
  readonly tomorrow: readonly string[];
  readonly notes: readonly string[];
  readonly updates: readonly string[];
  readonly stakeholders: RolloutConfig['stakeholders'];
}

/** The topic that pages the person on call, one for what can wait, one for what is only told, and one for each stakeholder: encrypted, and deaf to anything but TLS. */
export class Notifications extends Construct {
  readonly topic: Topic;
  /** What can wait until morning. */
  readonly tomorrow: Topic;
  /** What nobody needs to do anything about now. */
  readonly notes: Topic;
  /** Those who follow the rollout: the plan's channel. */
  readonly updates: Topic;
  /** Besides the person on call, who hears of alarms. */
  readonly support: Topic | undefined;
  /** Besides the followers, who gets a status update a day. */
  readonly security: Topic | undefined;
  private readonly key: Key;
  private readonly props: NotificationsProps;
  private readonly stakeholders: ReadonlyMap<Stakeholder, Topic>;

  constructor(scope: Construct, id: string, props: NotificationsProps) {
    super(scope, id);
    this.props = props;
    // Alarms cannot publish to a topic under the AWS managed key, whose policy nobody can extend.
    this.key = new Key(this, 'Key', {
      description: `Notifications of ${props.names.of('OnCall')}`,
      enableKeyRotation: true,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    // Rules get leave from their targets, without a condition, since KMS does not learn whose rules they are:
    // https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
    this.key.addToResourcePolicy(
      new PolicyStatement({
        ...this.ofThisAccount('cloudwatch'),
        actions: ['kms:Decrypt', 'kms:GenerateDataKey*'],
        resources: ['*'],
      }),
    );
    this.topic = this.create('OnCall', props.onCall, 'cloudwatch');
    this.tomorrow = this.create('Tomorrow', props.tomorrow, 'cloudwatch');
    this.notes = this.create('Notes', props.notes, 'cloudwatch');
    this.updates = this.create('Updates', props.updates);
    const wanted = (Object.keys(heard) as Stakeholder[]).filter(
      (name) => props.stakeholders[name].length > 0,
    );
    this.stakeholders = new Map(
      wanted.map((name) => [
        name,
        this.create(
          `${name[0]?.toUpperCase()}${name.slice(1)}`,
          props.stakeholders[name],
          ...(name === 'support' ? (['cloudwatch'] as const) : []),
        ),
      ]),
    );
    this.support = this.stakeholders.get('support');
    this.security = this.stakeholders.get('security');
  }

  /** Lets a publisher use the topics' key; leave to publish alone is not enough. */
  grantEncryption(publisher: IGrantable): void {
    this.key.grant(publisher, 'kms:Decrypt', 'kms:GenerateDataKey*');
  }

  /** Tells the stakeholders what they hear of. A dry run is nothing: it changes nothing. */
  tellOf(rollout: IStateMachine, rollback: IStateMachine): void {
    const { names } = this.props;
    const details = `Plaintext is never deleted. Details: dashboard ${names.dashboard}, execution ${EventField.fromPath('$.detail.executionArn')}`;
    const tidings = {
      'beginnings and ends': {
        detail: {
          stateMachineArn: [rollout.stateMachineArn],
          status: ['RUNNING', 'SUCCEEDED', 'FAILED', 'ABORTED', 'TIMED_OUT'],
          // The input as it was written, in one string.
          input: Match.anythingButWildcard('*"dryRun":true*', '*"dryRun": true*'),
        },
        text: `Encryption rollout of ${tablesInWords(names.tables)}: ${EventField.fromPath('$.detail.status')} at ${EventField.time}. RUNNING: it has begun. SUCCEEDED: it has done what it was started for. Otherwise it has ended early: it was refused before it changed a row, or stopped; the next start goes on from there. ${details}`,
      },
      rollbacks: {
        detail: { stateMachineArn: [rollback.stateMachineArn], status: ['RUNNING'] },
        text: `The encryption rollout of ${tablesInWords(names.tables)} was stopped, and is being rolled back since ${EventField.time}. The people on call know why, and whether customers notice anything. ${details}`,
      },
    };
    for (const [stakeholder, topic] of this.stakeholders) {
      const { detail, text } = tidings[heard[stakeholder]];
      new Rule(this, `Tell${stakeholder}`, {
        ruleName: names.of(`Tell-${stakeholder}`),
        description: `Tells ${stakeholder} of ${heard[stakeholder]} of the encryption rollout`,
        eventPattern: {
          source: ['aws.states'],
          detailType: ['Step Functions Execution Status Change'],
          detail,
        },
        targets: [new SnsTopic(topic, { message: RuleTargetInput.fromText(text) })],
      });
    }
  }

  /** A topic like the others, for whoever subscribes to it. */
  create(name: string, addresses: readonly string[], ...services: 'cloudwatch'[]): Topic {
    const topic = new Topic(this, name, {
      topicName: this.props.names.of(name),
      displayName: 'Encryption rollout',
      masterKey: this.key,
      enforceSSL: true,
    });
    // A topic with a policy of its own, which demanding TLS gives it, loses the one that lets alarms in.
    if (services.length > 0)
      topic.addToResourcePolicy(
        new PolicyStatement({
          ...this.ofThisAccount(...services),
          actions: ['sns:Publish'],
          resources: [topic.topicArn],
        }),
      );
    for (const address of addresses) topic.addSubscription(new EmailSubscription(address));
    return topic;
  }

  private ofThisAccount(...services: 'cloudwatch'[]) {
    return {
      principals: services.map((service) => new ServicePrincipal(`${service}.amazonaws.com`)),
      conditions: { StringEquals: { 'aws:SourceAccount': Stack.of(this).account } },
    };
  }
}
