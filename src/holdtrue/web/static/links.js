// Leads the links that MLflow's client prints (/#/experiments/1/runs/ID) to this server's pages: what stands after
// the # is never sent, so only a script can read it. Of several projects the reader chooses one first.

const runs = document.querySelector("main").dataset.runs;

function lead() {
  const asked = /^#\/experiments\/(\d{1,18})(?:\/runs\/([A-Za-z0-9][\w-]{0,255}))?$/.exec(location.hash);
  if (asked && runs) {
    location.replace(asked[2] ? `${runs}/${asked[2]}` : `${runs}?experiment_id=${asked[1]}`);
  } else if (asked) {
    for (const link of document.querySelectorAll("main a")) link.hash = location.hash;
  }
}

window.addEventListener("hashchange", lead);
lead();
