// Refresh tokens that rotate, by each of the three libraries: used twice, narrowed, revoked, reused.
import assert from 'node:assert/strict'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import { AuthorizationCode } from 'simple-oauth2'

const { GATEWAY, CLIENT_ID, CLIENT_SECRET } = process.env
const tokens = process.env.REFRESH_TOKENS.split(' ')
const issuer = new URL(GATEWAY)

async function statusOf(accessToken) {
  const answer = await fetch(new URL('/api/x', issuer), {
    headers: { authorization: `Bearer ${accessToken}` },
  })
  return answer.status
}

// oauth4webapi.
{
  const http = { [oauth.allowInsecureRequests]: true }
  const as = await oauth.processDiscoveryResponse(
    issuer,
    await oauth.discoveryRequest(issuer, { ...http, algorithm: 'oauth2' }),
  )
  assert.ok(as.grant_types_supported.includes('refresh_token'))
  const client = { client_id: CLIENT_ID }
  const authentication = oauth.ClientSecretBasic(CLIENT_SECRET)
  const refresh = async (token, additionalParameters = {}) =>
    oauth.processRefreshTokenResponse(
      as,
      client,
      await oauth.refreshTokenGrantRequest(as, client, authentication, token, {
        ...http,
        additionalParameters,
      }),
    )
  const [first] = tokens
  const second = await refresh(first, { scope: 'orders:read' })
  assert.equal(second.scope, 'orders:read')
  assert.notEqual(second.refresh_token, first)
  const third = await refresh(second.refresh_token)
  assert.equal(third.scope, 'orders:read orders:write')
  assert.equal(await statusOf(third.access_token), 200)
  const described = await oauth.processIntrospectionResponse(
    as,
    client,
    await oauth.introspectionRequest(as, client, authentication, third.refresh_token, http),
  )
  assert.equal(described.sub, 'alice')
  await assert.rejects(refresh(first), (error) => {
    assert.equal(error.error, 'invalid_grant')
    return true
  })
  assert.equal(await statusOf(third.access_token), 401)
}

// openid-client.
{
  const config = await openid.discovery(
    issuer, CLIENT_ID, undefined, openid.ClientSecretPost(CLIENT_SECRET),
    { algorithm: 'oauth2', execute: [openid.allowInsecureRequests] },
  )
  const second = await openid.refreshTokenGrant(config, tokens[1])
  const third = await openid.refreshTokenGrant(config, second.refresh_token)
  assert.equal(await statusOf(second.access_token), 200)
  await openid.tokenRevocation(config, third.refresh_token)
  assert.equal(await statusOf(second.access_token), 401)
  await assert.rejects(openid.refreshTokenGrant(config, third.refresh_token))
}

// simple-oauth2.
{
  const client = new AuthorizationCode({
    client: { id: CLIENT_ID, secret: CLIENT_SECRET },
    auth: { tokenHost: GATEWAY, tokenPath: '/token', revokePath: '/revoke' },
  })
  const second = await client.createToken({ refresh_token: tokens[2] }).refresh()
  const third = await second.refresh({ scope: 'orders:write' })
  assert.equal(third.token.scope, 'orders:write')
  assert.equal(await statusOf(third.token.access_token), 200)
  await third.revokeAll()
  assert.equal(await statusOf(second.token.access_token), 401)
}
console.log('all is well')
