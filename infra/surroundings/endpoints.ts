import { Stack } from 'aws-cdk-lib';
import { CfnSecurityGroup, CfnSecurityGroupIngress, CfnVPCEndpoint } from 'aws-cdk-lib/aws-ec2';
import { Construct } from 'constructs';
import type { GivenConfig } from '../config.ts';

/**
 * What the functions call. Their logs and traces leave through Lambda itself, and notifications are sent by Step
 * Functions and CloudWatch, not from the VPC.
 */
export const endpointServices = ['secretsmanager', 'monitoring', 'rds', 'states', 'scheduler'] as const;

/** Interface endpoints with private DNS, for subnets without a way to the internet, open to the functions alone. */
export class Endpoints extends Construct {
  constructor(scope: Construct, id: string, { stackName, vpcId, subnetIds, securityGroupId }: GivenConfig) {
    super(scope, id);
    const group = new CfnSecurityGroup(this, 'SecurityGroup', {
      vpcId,
      groupDescription: `Endpoints of ${stackName}`,
    });
    new CfnSecurityGroupIngress(this, 'FromFunctions', {
      groupId: group.attrGroupId,
      sourceSecurityGroupId: securityGroupId,
      ipProtocol: 'tcp',
      fromPort: 443,
      toPort: 443,
      description: 'HTTPS from the functions',
    });
    for (const service of endpointServices) {
      new CfnVPCEndpoint(this, service, {
        vpcId,
        subnetIds,
        securityGroupIds: [group.attrGroupId],
        vpcEndpointType: 'Interface',
        serviceName: `com.amazonaws.${Stack.of(this).region}.${service}`,
        privateDnsEnabled: true,
      });
    }
  }
}
