/** What the stand-in for AWS answers in the query protocol: the subscriptions of SNS, the snapshots of RDS. */
import { AwsError, type Snapshot, type World } from './aws-world.ts';

/** XML. @throws AwsError for what AWS would refuse, or nobody has asked yet */
export function answerQuery(action: string, input: URLSearchParams, world: World): string {
  const result =
    action === 'ListSubscriptionsByTopic'
      ? subscriptionsOf(input.get('TopicArn') ?? '', world)
      : snapshots(action, input, world);
  return `<${action}Response><${action}Result>${result}</${action}Result></${action}Response>`;
}

function subscriptionsOf(topic: string, { subscriptions = [confirmed(topic)] }: World): string {
  const members = subscriptions.map((subscription) => {
    const fields = Object.entries(subscription).map(([name, value]) => `<${name}>${value}</${name}>`);
    return `<member>${fields.join('')}</member>`;
  });
  return `<Subscriptions>${members.join('')}</Subscriptions>`;
}

function confirmed(topic: string) {
  return { SubscriptionArn: `${topic}:1`, Protocol: 'email', Endpoint: 'on-call@example.com' };
}

function snapshots(action: string, input: URLSearchParams, world: World): string {
  const [, verb, kind] = /^(Describe|Create)(DB(?:Cluster)?Snapshot)s?$/.exec(action) ?? [];
  if (kind === undefined) throw new AwsError('InvalidAction', `the rehearsal has no answer to ${action}`);
  world.snapshots ??= [];
  if (verb === 'Create') {
    const id = input.get(`${kind}Identifier`) ?? '';
    if (world.snapshots.some((snapshot) => snapshot.id === id))
      throw new AwsError(`${kind}AlreadyExistsFault`, `Cannot create the snapshot ${id}: it exists`);
    const snapshot = { id, status: 'creating' };
    world.snapshots.push(snapshot);
    return described(kind, snapshot);
  }
  const automated = { id: 'rds:automated', status: 'available', takenAt: world.snapshotAt };
  const ofAwsBackup = input.get('SnapshotType') === 'awsbackup';
  const found = [automated, ...world.snapshots].filter(
    (snapshot) => 'ofAwsBackup' in snapshot === ofAwsBackup,
  );
  return `<${kind}s>${found.map((snapshot) => described(kind, snapshot)).join('')}</${kind}s>`;
}

function described(kind: string, { id, status, takenAt, copyOf }: Snapshot): string {
  const time = (name: string, value: Date | undefined) =>
    value === undefined ? '' : `<${name}>${value.toISOString()}</${name}>`;
  const source =
    kind === 'DBSnapshot' || copyOf === undefined
      ? time('OriginalSnapshotCreateTime', copyOf)
      : '<SourceDBClusterSnapshotArn>arn:aws:rds:us-east-1:123456789012:cluster-snapshot:source</SourceDBClusterSnapshotArn>';
  return `<${kind}><${kind}Identifier>${id}</${kind}Identifier><Status>${status}</Status>${time('SnapshotCreateTime', takenAt)}${source}</${kind}>`;
}
